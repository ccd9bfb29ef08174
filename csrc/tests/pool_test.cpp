// The thread pool, by itself; prints nothing and returns 0 if all holds. Also run under -fsanitize=thread.
#include "pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

using namespace sambay;

#define CHECK(what)                                                                    \
    do {                                                                               \
        if (!(what)) {                                                                 \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);    \
            std::exit(1);                                                              \
        }                                                                              \
    } while (0)

static Pool& pool() { return Pool::instance(); }

static void every_thread_once(int count) {
    pool().set_threads(count);
    std::vector<int> seen(size_t(count), 0);
    pool().run([&](const Team& team) {
        CHECK(team.count == count);
        ++seen[size_t(team.thread)];
    });
    for (int times : seen) CHECK(times == 1);
}

// Each round reads what the neighbour wrote in the round before: plain memory, ordered by nothing but the barrier.
static void barriers(int count, int rounds) {
    pool().set_threads(count);
    std::vector<long> mine(size_t(count), 0);
    pool().run([&](const Team& team) {
        const size_t next = size_t((team.thread + 1) % team.count);
        for (int round = 0; round < rounds; ++round) {
            const long other = mine[next];
            barrier(team);
            mine[size_t(team.thread)] = other + 1;
            barrier(team);
        }
    });
    for (long value : mine) CHECK(value == rounds);
}

static void exceptions(int count) {
    pool().set_threads(count);
    for (int thrower = 0; thrower < count; ++thrower) {
        bool caught = false;
        try {
            pool().run([&](const Team& team) {
                barrier(team);
                if (team.thread == thrower) throw std::runtime_error("thread " + std::to_string(thrower));
                barrier(team);  // must not wait for the thread that threw
                barrier(team);
            });
        } catch (const std::runtime_error& error) {
            caught = error.what() == "thread " + std::to_string(thrower);
        }
        CHECK(caught);
        barriers(count, 3);  // and all is well again
    }
}

static void nested() {
    pool().set_threads(3);
    std::atomic<int> inner{0};
    pool().run([&](const Team&) {
        pool().run([&](const Team& team) {
            CHECK(team.count == 1 && team.thread == 0);
            barrier(team);
            ++inner;
        });
    });
    CHECK(inner == 3);
}

static void callers_take_turns() {
    pool().set_threads(2);
    long sum = 0;  // safe, because calls do not overlap
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller)
        callers.emplace_back([&] {
            for (int i = 0; i < 200; ++i)
                pool().run([&](const Team& team) {
                    if (team.thread == 0) ++sum;
                });
        });
    for (int i = 0; i < 20; ++i) pool().set_threads(1 + i % 3);
    for (std::thread& caller : callers) caller.join();
    CHECK(sum == 800);
}

static void sleepers_wake() {
    pool().set_threads(3);
    for (int i = 0; i < 20; ++i) {
        usleep(3000);
        every_thread_once(3);
    }
}

static void forks() {
    pool().set_threads(3);
    barriers(3, 5);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        barriers(3, 50);
        every_thread_once(2);
        const pid_t grandchild = fork();
        if (grandchild == 0) {
            every_thread_once(3);
            std::exit(0);
        }
        int status = 0;
        waitpid(grandchild, &status, 0);
        std::exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    barriers(3, 5);
}

static void shares() {
    for (size_t total : {0, 1, 31, 32, 33, 1000, 4096})
        for (int count = 1; count <= 7; ++count) {
            size_t end = 0;
            for (int thread = 0; thread < count; ++thread) {
                const Share one = share(Team{thread, count, nullptr, nullptr, nullptr}, total, 32);
                CHECK(one.begin == end && one.begin <= one.end && (one.end % 32 == 0 || one.end == total));
                end = one.end;
            }
            CHECK(end == total);
        }
}

int main(int argc, char**) {
    shares();
    for (int count : {1, 2, 3, 5}) {
        every_thread_once(count);
        barriers(count, 300);
        exceptions(count);
    }
    for (int i = 0; i < 50; ++i) every_thread_once(1 + i % 4);
    nested();
    callers_take_turns();
    sleepers_wake();
    if (argc < 2) forks();  // the thread sanitizer wants no threads after a fork
    return 0;
}
