#include "cores.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

namespace sambay {

#ifdef __linux__
namespace {

// The CPUs' worth of time in one directory of a cgroup hierarchy; 0 where it sets no limit.
double quota_in(const std::string& directory) {
    double quota = 0, period = 0;
    std::string word;
    if (std::ifstream two(directory + "/cpu.max"); two >> word >> period)
        return word != "max" && period > 0 ? std::atof(word.c_str()) / period : 0;
    std::ifstream used(directory + "/cpu.cfs_quota_us"), whole(directory + "/cpu.cfs_period_us");
    return used >> quota && whole >> period && quota > 0 && period > 0 ? quota / period : 0;
}

// The least of a process's cgroup and those above it, in both generations of the interface.
double cgroup_quota() {
    double least = 0;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        std::vector<std::string> roots;
        if (controllers.empty()) roots = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
        else if (("," + controllers + ",").find(",cpu,") != std::string::npos)
            roots = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"};
        for (const std::string& root : roots) {
            std::string path = line.substr(second + 1);
            while (true) {
                const double quota = quota_in(root + path);
                if (quota > 0 && (least == 0 || quota < least)) least = quota;
                if (path.empty() || path == "/") break;
                path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
            }
        }
    }
    return least;
}

}  // namespace
#endif

Cores available_cores() {
    const int all = std::max(1, int(std::thread::hardware_concurrency()));
    Cores cores{all, all, 0};
#ifdef __linux__
    std::vector<int> allowed;
    for (int room = 1024; room <= 1 << 20; room *= 2) {  // a machine may have more CPUs than a cpu_set_t
        cpu_set_t* set = CPU_ALLOC(room);
        const size_t size = CPU_ALLOC_SIZE(room);
        const bool told = set && sched_getaffinity(0, size, set) == 0;
        for (int cpu = 0; told && cpu < room; ++cpu)
            if (CPU_ISSET_S(cpu, size, set)) allowed.push_back(cpu);
        CPU_FREE(set);
        if (told) break;
    }
    if (!allowed.empty()) {
        std::set<std::string> siblings;
        for (int cpu : allowed) {
            std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
            std::string line;
            siblings.insert(std::getline(file, line) && !line.empty() ? line : std::to_string(cpu));
        }
        cores.cpus = int(allowed.size());
        cores.physical = int(siblings.size());
    }
    cores.quota = cgroup_quota();
#elif defined(__APPLE__)
    int value = 0;
    size_t size = sizeof value;
    // The fast cores only: a share that a slow core computes is what everyone waits for.
    if ((sysctlbyname("hw.perflevel0.physicalcpu", &value, &size, nullptr, 0) == 0 ||
         sysctlbyname("hw.physicalcpu", &value, &size, nullptr, 0) == 0) && value > 0)
        cores.physical = value;
#endif
    return cores;
}

int default_threads() {
    const Cores cores = available_cores();
    int count = cores.physical;
    if (cores.quota > 0) count = std::min(count, int(std::ceil(cores.quota)));
    return std::max(1, count);
}

}  // namespace sambay
