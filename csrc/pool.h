// A team of threads that stays: run() calls a function on all of them at once and returns when all have returned.
//
// The caller is thread 0. Waiting threads spin for a moment, then give their core away to whoever wants it, then sleep:
// a hot call costs about a microsecond, and a machine with more threads than cores stays usable. Nothing is pinned.
// Calls from several threads take turns. A call from within a call runs alone on the thread that makes it.
// After fork() the child has no workers and makes its own when it needs them; they end with the process.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernel_table.h"

namespace sambay {

class Pool {
  public:
    // The pool of this process. It is never destroyed: its workers are joined at exit.
    static Pool& instance();

    int threads();                // how many run() uses; by default default_threads()
    void set_threads(int count);  // at least 1; waits for a call that is under way

    // Calls fn(const Team&) on every thread; fn may call barrier(team). The first exception is thrown here, after all
    // threads have come back; those that wait at a barrier for the thread that threw are released by an exception.
    template <class F>
    void run(F&& fn) {
        using Function = std::remove_reference_t<F>;
        run([](void* self, const Team& team) { (*static_cast<Function*>(self))(team); },
            const_cast<void*>(static_cast<const void*>(&fn)));
    }

  private:
    using Job = void (*)(void*, const Team&);
    // A word that threads wait for to change, on a cache line of its own.
    struct alignas(64) Word {
        std::atomic<uint32_t> value{0};
        std::atomic<uint32_t> sleepers{0};
        void wait(uint32_t old, bool crowded, int patience);
        void wake();
    };
    struct Released {};  // thrown out of barrier() when another thread of the team has failed

    Pool();
    void run(Job job, void* self);
    void start();  // the workers, if there are none
    void stop();   // and joins them
    void work(int thread, uint32_t seen);
    void share(int thread);
    void fail(std::exception_ptr error);
    static void barrier_of(void* pool);
    static void before_fork();
    static void after_fork_in_parent();
    static void after_fork_in_child();

    std::mutex turn_;             // held during a call, and by whoever changes the workers
    std::atomic<int> wanted_{0};  // 0: not decided yet
    std::vector<std::thread> workers_;
    bool closed_ = false;         // at exit: no more workers
    bool stopping_ = false;
    bool crowded_ = false;        // more threads than CPUs: waiting by spinning keeps others from working
    int count_ = 1;               // threads of the call under way
    std::unique_ptr<Taken[]> taken_;  // of the call under way
    Job job_ = nullptr;
    void* self_ = nullptr;
    std::mutex error_turn_;
    std::exception_ptr error_;
    std::atomic<bool> failed_{false};

    Word epoch_;                  // grows with every call: what idle workers wait for
    Word pending_;                // workers that have not come back: what the caller waits for
    Word phase_;                  // grows when a barrier opens
    alignas(64) std::atomic<int> arrived_{0};
};

}  // namespace sambay
