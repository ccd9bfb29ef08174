#include "pool.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <climits>
#include <cstdlib>
#include <system_error>

#include "cores.h"

#ifdef __linux__
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#include <sched.h>
#endif

namespace sambay {
namespace {

// How long a thread waits awake, in microseconds: at work for the others, idle for the next call. Python and torch take
// some tens of microseconds between two calls; to wake a sleeper takes about as long.
constexpr int kAtWork = 50, kIdle = 100, kWithoutYielding = 4;

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");  // `yield` does nothing on most cores; this waits some tens of cycles
#endif
}

#ifdef __linux__
void sleep_on(std::atomic<uint32_t>& word, uint32_t old) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
}
void wake_all(std::atomic<uint32_t>& word) {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}
#else
// One bed for all words: sleepers check their own when any is woken. Leaked, like the pool.
std::mutex& bed() { static auto* one = new std::mutex; return *one; }
std::condition_variable& bell() { static auto* one = new std::condition_variable; return *one; }
void sleep_on(std::atomic<uint32_t>& word, uint32_t old) {
    std::unique_lock<std::mutex> lock(bed());
    if (word.load() == old) bell().wait(lock);
}
void wake_all(std::atomic<uint32_t>&) {
    std::lock_guard<std::mutex> lock(bed());
    bell().notify_all();
}
#endif

thread_local bool inside = false;  // this thread is running a job

}  // namespace

// Returns when the value is no longer `old`.
void Pool::Word::wait(uint32_t old, bool crowded, int patience) {
    using Clock = std::chrono::steady_clock;
    if (!crowded) {
        const auto start = Clock::now();
        for (auto spent = start - start; spent < std::chrono::microseconds(patience); spent = Clock::now() - start) {
            for (int i = 0; i < 16; ++i) {
                if (value.load(std::memory_order_acquire) != old) return;
                relax();
            }
            if (spent > std::chrono::microseconds(kWithoutYielding)) sched_yield();
        }
    }
    // In one order for all: either wake() sees the sleeper, or the sleeper sees the new value and does not lie down.
    sleepers.fetch_add(1);
    while (value.load() == old) sleep_on(value, old);
    sleepers.fetch_sub(1);
}

void Pool::Word::wake() {
    if (sleepers.load() != 0) wake_all(value);
}

Pool& Pool::instance() {
    static Pool* const pool = new Pool;
    return *pool;
}

Pool::Pool() {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    std::atexit([] {
        Pool& pool = instance();
        std::lock_guard<std::mutex> lock(pool.turn_);
        pool.stop();
        pool.closed_ = true;
    });
}

int Pool::threads() {
    int count = wanted_.load();
    if (count == 0) {
        const int found = default_threads();
        count = wanted_.compare_exchange_strong(count, found) ? found : count;
    }
    return count;
}

void Pool::set_threads(int count) {
    std::lock_guard<std::mutex> lock(turn_);
    wanted_.store(count < 1 ? 1 : count);
    if (int(workers_.size()) + 1 != wanted_.load()) stop();
}

void Pool::start() {
    const int count = closed_ ? 1 : threads();
    if (!workers_.empty() || count == 1) return;
    crowded_ = count > available_cores().cpus;
    // Signals are for the threads of the application.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        workers_.reserve(size_t(count) - 1);
        taken_.reset(new Taken[size_t(kPhases * count)]);
        for (int thread = 1; thread < count; ++thread)
            workers_.emplace_back(&Pool::work, this, thread, epoch_.value.load());
    } catch (const std::system_error&) {
        // The system allows no more threads: fewer do the same work.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Pool::stop() {
    stopping_ = true;
    epoch_.value.fetch_add(1);
    epoch_.wake();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    stopping_ = false;
}

void Pool::run(Job job, void* self) {
    if (inside) {
        job(self, Team{0, 1, barrier_of, this, nullptr});
        return;
    }
    std::lock_guard<std::mutex> lock(turn_);
    start();
    job_ = job;
    self_ = self;
    count_ = int(workers_.size()) + 1;
    if (count_ > 1) {
        for (int i = 0; i < kPhases * count_; ++i) taken_[size_t(i)].count.store(0, std::memory_order_relaxed);
        arrived_.store(0);
        failed_.store(false);
        pending_.value.store(uint32_t(count_ - 1));
        epoch_.value.fetch_add(1);
        epoch_.wake();
    }
    share(0);
    for (uint32_t left; (left = pending_.value.load()) != 0;) pending_.wait(left, crowded_, kAtWork);
    if (error_) {
        std::exception_ptr error;
        std::swap(error, error_);
        std::rethrow_exception(error);
    }
}

void Pool::work(int thread, uint32_t seen) {
#ifdef __linux__
    pthread_setname_np(pthread_self(), "sambay");
#endif
    while (true) {
        epoch_.wait(seen, crowded_, kIdle);
        seen = epoch_.value.load();
        if (stopping_) return;
        share(thread);
        if (pending_.value.fetch_sub(1) == 1) pending_.wake();
    }
}

void Pool::share(int thread) {
    inside = true;
    try {
        job_(self_, Team{thread, count_, barrier_of, this, taken_.get()});
    } catch (const Released&) {
    } catch (...) {
        fail(std::current_exception());
    }
    inside = false;
}

void Pool::fail(std::exception_ptr error) {
    {
        std::lock_guard<std::mutex> lock(error_turn_);
        if (!error_) error_ = std::move(error);
    }
    failed_.store(true);
    phase_.value.fetch_add(1);
    phase_.wake();
}

void Pool::barrier_of(void* self) {
    Pool& pool = *static_cast<Pool*>(self);
    const uint32_t phase = pool.phase_.value.load();
    if (pool.failed_.load()) throw Released{};
    if (pool.arrived_.fetch_add(1) + 1 == pool.count_) {
        pool.arrived_.store(0);
        pool.phase_.value.fetch_add(1);
        pool.phase_.wake();
        return;
    }
    pool.phase_.wait(phase, pool.crowded_, kAtWork);
    if (pool.failed_.load()) throw Released{};
}

// A fork waits for the call under way, so that the child finds everything at rest.
void Pool::before_fork() { instance().turn_.lock(); }
void Pool::after_fork_in_parent() { instance().turn_.unlock(); }
void Pool::after_fork_in_child() {
    Pool& pool = instance();
    new std::vector<std::thread>(std::move(pool.workers_));  // threads of the parent: there is nothing to join here
    pool.workers_.clear();
    pool.epoch_.sleepers.store(0);
    pool.pending_.sleepers.store(0);
    pool.phase_.sleepers.store(0);
    pool.turn_.unlock();
}

}  // namespace sambay
