// Letting Python run while a kernel does: use this, not nanobind's gil_scoped_release.
//
// Until Python 3.14, a thread that asks for the lock while the interpreter ends is unwound, through C++ that forbids it:
// the process aborts. Daemon threads spend most of their time in kernels, so it would happen at every other Ctrl-C.
// Here such a thread sleeps until the process is gone, which is what Python 3.14 does.
#pragma once

#include <Python.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace sambay {

struct Ending {
    std::atomic<bool> begun{false};
    std::atomic<int> asking{0};  // threads that ask for the lock and have not got it yet
    std::thread::id by;

    static Ending& instance() {
        static Ending* const one = new Ending;
        return *one;
    }
    // Called by Python's atexit, with the lock: from now on only the thread that ends Python comes back to it.
    static void begin() {
        Ending& ending = instance();
        ending.by = std::this_thread::get_id();
        ending.begun = true;
        PyThreadState* const state = PyEval_SaveThread();
        while (ending.asking != 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
        PyEval_RestoreThread(state);
    }
};

class WithoutGil {
  public:
    WithoutGil() : state_(PyEval_SaveThread()) {}
    ~WithoutGil() {
        Ending& ending = Ending::instance();
        ++ending.asking;
        if (ending.begun && std::this_thread::get_id() != ending.by) {
            --ending.asking;
            while (true) std::this_thread::sleep_for(std::chrono::hours(1));
        }
        PyEval_RestoreThread(state_);
        --ending.asking;
    }
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;

  private:
    PyThreadState* state_;
};

}  // namespace sambay
