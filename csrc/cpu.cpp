#include "cpu.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace sambay {
namespace {

// ---- features --------------------------------------------------------------------------------------------------

struct Feature {
    const char* name;
    bool present;
};

#if defined(__x86_64__)

struct Registers { uint32_t a, b, c, d; };

Registers cpuid(uint32_t leaf, uint32_t sub) {
    Registers r;
    asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
    return r;
}

// Which registers the operating system saves when it switches threads (XCR0).
uint64_t saved_registers() {
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t(high) << 32 | low;
}

// Linux hands out tile data only to processes that asked for it; one that may not is killed by its first tile load.
bool tiles_permitted() {
#ifdef __linux__
    constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
    return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
    return false;
#endif
}

std::vector<Feature> find_features() {
    const uint32_t leaves = cpuid(0, 0).a;
    const Registers one = leaves >= 1 ? cpuid(1, 0) : Registers{};
    const Registers seven = leaves >= 7 ? cpuid(7, 0) : Registers{};
    const Registers more = seven.a >= 1 ? cpuid(7, 1) : Registers{};
    const auto bit = [](uint32_t word, int at) { return (word >> at & 1) != 0; };
    const uint64_t saved = bit(one.c, 27) ? saved_registers() : 0;
    const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6, tiles = (saved & 0x60000) == 0x60000;
    const bool tile = zmm && tiles && bit(seven.d, 24) && tiles_permitted();
    return {
        {"avx2", ymm && bit(seven.b, 5)},
        {"fma", ymm && bit(one.c, 12)},
        {"f16c", ymm && bit(one.c, 29)},
        {"bmi2", bit(seven.b, 8)},
        {"avx_vnni", ymm && bit(more.a, 4)},
        {"avx512f", zmm && bit(seven.b, 16)},
        {"avx512bw", zmm && bit(seven.b, 30)},
        {"avx512vl", zmm && bit(seven.b, 31)},
        {"avx512dq", zmm && bit(seven.b, 17)},
        {"avx512_vnni", zmm && bit(seven.c, 11)},
        {"avx512_bf16", zmm && bit(more.a, 5)},
        {"amx_tile", tile},
        {"amx_int8", tile && bit(seven.d, 25)},
        {"amx_bf16", tile && bit(seven.d, 22)},
    };
}

constexpr const char* kArchitecture = "x86_64";

#elif defined(__aarch64__) && defined(__linux__)

std::vector<Feature> find_features() {
    const unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
    return {
        {"asimdhp", (one >> 10 & 1) != 0},
        {"asimddp", (one >> 20 & 1) != 0},
        {"i8mm", (two >> 13 & 1) != 0},
        {"bf16", (two >> 14 & 1) != 0},
    };
}

constexpr const char* kArchitecture = "aarch64";

#elif defined(__aarch64__) && defined(__APPLE__)

std::vector<Feature> find_features() {
    const auto has = [](const char* name) {
        int value = 0;
        size_t size = sizeof value;
        return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
    };
    return {
        {"asimdhp", has("hw.optional.arm.FEAT_FP16")},
        {"asimddp", has("hw.optional.arm.FEAT_DotProd")},
        {"i8mm", has("hw.optional.arm.FEAT_I8MM")},
        {"bf16", has("hw.optional.arm.FEAT_BF16")},
    };
}

constexpr const char* kArchitecture = "aarch64";

#else

std::vector<Feature> find_features() { return {}; }
constexpr const char* kArchitecture = "another architecture";

#endif

const std::vector<Feature>& features() {
    static const std::vector<Feature> found = find_features();
    return found;
}

// ---- instruction sets ------------------------------------------------------------------------------------------

struct Definition {
    const char* name;
    const char* architecture;  // null: any
    std::vector<const char*> needs;
    const KernelTable* table;
};

std::vector<Definition> definitions() {
#ifdef SAMBAY_HAVE_AVX2
    const KernelTable* avx2 = table_avx2();
#else
    const KernelTable* avx2 = nullptr;
#endif
#ifdef SAMBAY_HAVE_AVXVNNI
    const KernelTable* avxvnni = table_avxvnni();
#else
    const KernelTable* avxvnni = nullptr;
#endif
#ifdef SAMBAY_HAVE_AVX512
    const KernelTable* avx512 = table_avx512();
#else
    const KernelTable* avx512 = nullptr;
#endif
#ifdef SAMBAY_HAVE_AMX
    const KernelTable* amx = table_amx();
#else
    const KernelTable* amx = nullptr;
#endif
#ifdef SAMBAY_HAVE_NEON
    const KernelTable* neon = table_neon();
#else
    const KernelTable* neon = nullptr;
#endif
    // What isa_*.cpp is compiled with (CMakeLists.txt), and nothing else. From the plainest to the best.
    return {
        {"portable", nullptr, {}, table_portable()},
        {"avx2", "x86_64", {"avx2", "fma", "f16c", "bmi2"}, avx2},
        {"avxvnni", "x86_64", {"avx2", "fma", "f16c", "bmi2", "avx_vnni"}, avxvnni},
        {"avx512", "x86_64", {"avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "avx512vl", "avx512dq",
                              "avx512_vnni"}, avx512},
        {"amx", "x86_64", {"avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "avx512vl", "avx512dq",
                           "avx512_vnni", "amx_tile", "amx_int8"}, amx},
        {"neon", "aarch64", {"asimdhp", "asimddp"}, neon},
    };
}

std::string obstacle_of(const Definition& one) {
    if (one.architecture && std::strcmp(one.architecture, kArchitecture) != 0)
        return std::string("it is for ") + one.architecture + ", and this is " + kArchitecture;
    std::string missing;
    for (const char* name : one.needs) {
        const auto found = std::find_if(features().begin(), features().end(),
                                        [&](const Feature& f) { return std::strcmp(f.name, name) == 0; });
        if (found == features().end() || !found->present) missing += (missing.empty() ? "" : ", ") + std::string(name);
    }
    if (!missing.empty()) return "this CPU or its operating system lacks " + missing;
    if (!one.table) return "the compiler that built sambay was too old for it";
    return "";
}

// ---- the choice ------------------------------------------------------------------------------------------------

constexpr size_t kEntries = sizeof(KernelTable) / sizeof(void*);
constexpr const char* kNames[] = {
#define SAMBAY_NAME(name, result, arguments) #name,
    SAMBAY_KERNELS(SAMBAY_NAME)
#undef SAMBAY_NAME
};
static_assert(sizeof(KernelTable) % sizeof(void*) == 0 && sizeof kNames / sizeof *kNames == kEntries);

struct Choice {
    std::string isa;
    KernelTable table;
    std::string origins[kEntries];
};

Choice choose(const std::string& forced) {
    Choice choice{};
    void* entries[kEntries] = {};
    bool known = forced.empty();
    std::string possible;
    for (const Isa& one : instruction_sets()) {
        if (one.obstacle.empty()) possible += (possible.empty() ? "" : ", ") + one.name;
        known = known || one.name == forced;
    }
    if (!known) throw std::invalid_argument("is no instruction set that sambay knows; possible here: " + possible);
    for (const Isa& one : instruction_sets()) {
        if (!one.obstacle.empty()) {
            if (one.name == forced)
                throw std::invalid_argument("cannot run here: " + one.obstacle + "; possible here: " + possible);
            continue;
        }
        void* own[kEntries];
        std::memcpy(own, one.table, sizeof own);
        for (size_t at = 0; at < kEntries; ++at) {
            if (!own[at]) continue;
            entries[at] = own[at];
            choice.origins[at] = one.name;
        }
        choice.isa = one.name;
        if (one.name == forced) break;
    }
    for (size_t at = 0; at < kEntries; ++at)
        if (!entries[at]) throw std::logic_error(std::string("isa_portable.cpp lacks the kernel ") + kNames[at]);
    std::memcpy(&choice.table, entries, sizeof entries);
    return choice;
}

Choice& current() {
    static Choice choice = choose("");
    return choice;
}

}  // namespace

const std::vector<Isa>& instruction_sets() {
    static const std::vector<Isa> all = [] {
        std::vector<Isa> made;
        for (const Definition& one : definitions()) made.push_back({one.name, one.table, obstacle_of(one)});
        return made;
    }();
    return all;
}

std::vector<std::string> cpu_features() {
    std::vector<std::string> names;
    for (const Feature& one : features())
        if (one.present) names.emplace_back(one.name);
    return names;
}

void use_isa(const std::string& forced) { current() = choose(forced); }
const std::string& isa_in_use() { return current().isa; }
const KernelTable& kernels() { return current().table; }

std::vector<std::pair<std::string, std::string>> kernel_origins() {
    std::vector<std::pair<std::string, std::string>> all;
    for (size_t at = 0; at < kEntries; ++at) all.emplace_back(kNames[at], current().origins[at]);
    return all;
}

}  // namespace sambay
