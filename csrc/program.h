// A pass of the model as a list of kernels with their arguments, to be run again without Python between them.
//
// While a thread records, every kernel that it calls is run and noted. What is noted are addresses: whoever records keeps
// the buffers where they are, and changes only what is in them (tokens, positions, states).
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "pool.h"

namespace sambay {

// Let a kernel's scratch memory be there, if it takes any.
template <class Arguments>
void place(Arguments& arguments, uint8_t* scratch) {
    if constexpr (requires { arguments.scratch; }) arguments.scratch = reinterpret_cast<decltype(arguments.scratch)>(scratch);
}

class Program {
  public:
    Program() = default;
    Program(const Program&) = delete;

    // The program that the calling thread records, or null.
    static Program*& recording() {
        static thread_local Program* one = nullptr;
        return one;
    }

    // `alone`: a kernel for one thread, or one of so little work that the others would only get in its way.
    template <class Arguments>
    void add(void (*kernel)(const Arguments&, const Team&), const Arguments& arguments, bool alone, int64_t scratch_bytes) {
        steps_.push_back(std::make_unique<StepOf<Arguments>>(kernel, arguments, alone));
        if (scratch_bytes > scratch_bytes_) scratch_bytes_ = scratch_bytes;
    }

    size_t size() const { return steps_.size(); }
    int64_t scratch_bytes() const { return scratch_bytes_; }

    // Where the last kernel writes to; null if there is none, or it writes elsewhere.
    const void* result() const { return steps_.empty() ? nullptr : steps_.back()->result(); }

    // It writes there from now on.
    void redirect(void* out) {
        if (!result()) throw std::runtime_error("the last kernel has no result");
        steps_.back()->redirect(out);
    }

    // `most` threads were thought of when the scratch memory was measured.
    void run(uint8_t* scratch, int most) {
        if (scratch != scratch_)
            for (const auto& step : steps_) step->place(scratch);
        scratch_ = scratch;
        const size_t shares = steps_.size() * kPhases * size_t(most);
        if (shares > shares_) taken_.reset(new Taken[shares]);
        else
            for (size_t i = 0; i < shares; ++i) taken_[i].count.store(0, std::memory_order_relaxed);
        shares_ = shares;
        Pool::instance().run([&](const Team& team) {
            if (team.count > most) throw std::runtime_error("the number of threads changed since the step was recorded");
            const Team one{0, 1, nullptr, nullptr, nullptr};
            Team all = team;
            all.taken = taken_.get();
            for (size_t i = 0; i < steps_.size(); ++i, all.taken += kPhases * team.count) {
                const Step& step = *steps_[i];
                const bool last = i + 1 == steps_.size();
                if (!step.alone) step.call(all);
                else if (team.thread == 0) step.call(one);
                if (!last && !(step.alone && steps_[i + 1]->alone)) barrier(team);
            }
        });
    }

  private:
    struct Step {
        explicit Step(bool alone) : alone(alone) {}
        virtual ~Step() = default;
        virtual void call(const Team& team) const = 0;
        virtual void place(uint8_t* scratch) = 0;
        virtual const void* result() const = 0;
        virtual void redirect(void* out) = 0;
        const bool alone;
    };

    template <class Arguments>
    struct StepOf final : Step {
        using Kernel = void (*)(const Arguments&, const Team&);
        StepOf(Kernel kernel, const Arguments& arguments, bool alone) : Step(alone), kernel(kernel), arguments(arguments) {}
        void call(const Team& team) const override { kernel(arguments, team); }
        void place(uint8_t* scratch) override { sambay::place(arguments, scratch); }
        const void* result() const override {
            if constexpr (requires { arguments.out; }) return arguments.out;
            else return nullptr;
        }
        void redirect(void* out) override {
            if constexpr (requires { arguments.out; }) arguments.out = static_cast<decltype(arguments.out)>(out);
        }
        const Kernel kernel;
        Arguments arguments;
    };

    std::vector<std::unique_ptr<Step>> steps_;
    int64_t scratch_bytes_ = 0;
    uint8_t* scratch_ = nullptr;
    std::unique_ptr<Taken[]> taken_;  // for every step: one after the other, there is no time to clear them between
    size_t shares_ = 0;
};

}  // namespace sambay
