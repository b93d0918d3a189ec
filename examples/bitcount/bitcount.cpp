// bitcount: counts the bitstrings of a file, as an MPI program.
//
//     mpiexec -n 4 ./bitcount BITS COUNTS
//
// BITS is binary; the numbers of its header are little-endian:
//
//     8 bytes    the letters "HPBITS1" and a newline
//     8 bytes    number of qubits, 1 to 20
//     8 bytes    number of shots, at least 1
//     then for each shot ceil(qubits / 8) bytes: its bits as one big-endian number, qubit 0 lowest
//
// COUNTS is JSON, written as a whole or not at all; bitstrings that never occurred are left out:
//
//     {"qubits": 10, "shots": 10000, "ranks": 4, "counts": {"0000000000": 5013, ...}}
//
// Exit codes: 0 done; 2 wrong arguments, or ranks that did not find each other; 3 BITS cannot be
// used; 4 COUNTS cannot be written. The reason is on stderr.

#define OMPI_SKIP_MPICXX 1  // not the C++ bindings that MPI itself has given up
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr int kUsage = 2, kInput = 3, kOutput = 4;
constexpr std::uint64_t kHeaderBytes = 24, kMostQubits = 20;
constexpr char kMagic[] = "HPBITS1\n";

struct Failure {
    int code;
    std::string text;
};

struct Header {
    std::uint64_t qubits = 0, shots = 0;
    std::uint64_t width() const { return (qubits + 7) / 8; }  // bytes of a shot
    std::uint64_t bitstrings() const { return std::uint64_t{1} << qubits; }
};

std::uint64_t little_endian(const unsigned char* bytes) {
    std::uint64_t number = 0;
    for (int i = 7; i >= 0; --i) number = number << 8 | bytes[i];
    return number;
}

std::uint64_t size_of(const std::string& path) {
    struct stat status;
    if (stat(path.c_str(), &status) != 0)
        throw Failure{kInput, path + " cannot be read: " + std::strerror(errno)};
    if (!S_ISREG(status.st_mode)) throw Failure{kInput, path + " is not a regular file"};
    return static_cast<std::uint64_t>(status.st_size);
}

// The header of BITS, and the whole file's size checked against it.
Header read_header(const std::string& path) {
    const std::uint64_t size = size_of(path);
    std::ostringstream why;
    why << path << " has " << size << " bytes, ";
    if (size < kHeaderBytes) {
        why << "fewer than the " << kHeaderBytes << " of its header"
            << (size == 0 ? ": it is empty" : "");
        throw Failure{kInput, why.str()};
    }
    unsigned char bytes[kHeaderBytes];
    std::ifstream file(path, std::ios::binary);
    if (!file.read(reinterpret_cast<char*>(bytes), kHeaderBytes))
        throw Failure{kInput, path + " cannot be read: " + std::strerror(errno)};
    if (std::memcmp(bytes, kMagic, 8) != 0)
        throw Failure{kInput, path + " is no file of bitstrings: it does not begin with HPBITS1"};
    const Header header{little_endian(bytes + 8), little_endian(bytes + 16)};
    if (header.qubits < 1 || header.qubits > kMostQubits)
        throw Failure{kInput, path + " is of " + std::to_string(header.qubits) +
                                  " qubits; possible are 1 to " + std::to_string(kMostQubits)};
    if (header.shots < 1) throw Failure{kInput, path + " has no shots"};
    const std::uint64_t rest = size - kHeaderBytes;
    // Divided, not multiplied: a header of nonsense must not overflow into the right size.
    if (rest % header.width() != 0 || rest / header.width() != header.shots) {
        why << "which does not fit its header: " << kHeaderBytes << " + " << header.shots
            << " shots x " << header.width() << " (" << header.qubits << " qubits)";
        throw Failure{kInput, why.str()};
    }
    return header;
}

// The counts of the shots from `first` up to, not including, `last`.
std::vector<std::uint64_t> histogram(const std::string& path, const Header& header,
                                     std::uint64_t first, std::uint64_t last) {
    std::vector<std::uint64_t> counts(header.bitstrings(), 0);
    const std::uint64_t width = header.width();
    std::ifstream file(path, std::ios::binary);
    file.seekg(static_cast<std::streamoff>(kHeaderBytes + first * width));
    std::vector<unsigned char> buffer(65536 * width);
    for (std::uint64_t shot = first; shot < last;) {
        const std::uint64_t some = std::min<std::uint64_t>(65536, last - shot);
        if (!file.read(reinterpret_cast<char*>(buffer.data()),
                       static_cast<std::streamsize>(some * width)))
            throw Failure{kInput, path + " cannot be read from shot " + std::to_string(shot) +
                                      " on: " + std::strerror(errno)};
        for (std::uint64_t i = 0; i < some; ++i, ++shot) {
            std::uint64_t bits = 0;
            for (std::uint64_t k = 0; k < width; ++k) bits = bits << 8 | buffer[i * width + k];
            if (bits >= counts.size())
                throw Failure{kInput, path + ": shot " + std::to_string(shot) +
                                          " has a bit set above the highest qubit"};
            ++counts[bits];
        }
    }
    return counts;
}

std::string json(const Header& header, int ranks, const std::vector<std::uint64_t>& counts) {
    std::ostringstream text;
    text << "{\"qubits\": " << header.qubits << ", \"shots\": " << header.shots
         << ", \"ranks\": " << ranks << ", \"counts\": {";
    const char* separator = "";
    for (std::size_t bits = 0; bits < counts.size(); ++bits) {
        if (counts[bits] == 0) continue;
        text << separator << '"';
        for (std::uint64_t q = header.qubits; q-- > 0;) text << (bits >> q & 1);
        text << "\": " << counts[bits];
        separator = ", ";
    }
    text << "}}\n";
    return text.str();
}

// A new file in the same folder, on disk, then a rename: nobody ever reads half of it.
void write_atomic(const std::string& path, const std::string& text) {
    struct stat status;
    // A rename would put the file in the place of a device, /dev/null for instance.
    if (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
        throw Failure{kOutput, path + " cannot be written: it is not a regular file"};
    const std::string part = path + ".part" + std::to_string(getpid());
    std::FILE* file = std::fopen(part.c_str(), "wb");
    bool good = file != nullptr;
    if (good) {
        good = std::fwrite(text.data(), 1, text.size(), file) == text.size() &&
               std::fflush(file) == 0 && fsync(fileno(file)) == 0;
        good = std::fclose(file) == 0 && good;
    }
    if (good && std::rename(part.c_str(), path.c_str()) == 0) return;
    const std::string why = std::strerror(errno);
    std::remove(part.c_str());
    throw Failure{kOutput, path + " cannot be written: " + why};
}

// A program that was built with one MPI and is started by another's launcher runs as so many
// programs of one rank each, and every one of them would count the whole file.
void check_launcher(int ranks) {
    for (const char* name : {"PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"}) {
        const char* told = std::getenv(name);
        if (ranks == 1 && told != nullptr && std::atoi(told) > 1)
            throw Failure{kUsage, "started as one of " + std::string(told) + " ranks (" + name +
                                      "), but MPI knows only this one: the program was built with "
                                      "another MPI than the launcher's"};
    }
}

// Which rank counts what, and where: each rank's share in order, written by rank 0.
void tell_shares(int rank, int ranks, std::uint64_t shots) {
    char host[MPI_MAX_PROCESSOR_NAME] = {};
    int length = 0;
    MPI_Get_processor_name(host, &length);
    std::vector<char> hosts(rank == 0 ? ranks * sizeof host : 0);
    MPI_Gather(host, sizeof host, MPI_CHAR, hosts.data(), sizeof host, MPI_CHAR, 0, MPI_COMM_WORLD);
    for (int r = 0; rank == 0 && r < ranks; ++r)
        std::cout << "rank " << r << " of " << ranks << " on " << &hosts[r * sizeof host] << ": "
                  << shots * (r + 1) / ranks - shots * r / ranks << " shots\n";
    std::cout.flush();
}

// Does the work; 0, or the exit code of its failure, whose reason is then on stderr.
template <typename Work>
int code_of(Work work) {
    try {
        work();
        return 0;
    } catch (const Failure& failure) {
        // One write: the ranks share a stderr.
        std::cerr << "bitcount: " + failure.text + "\n" << std::flush;
        return failure.code;
    }
}

// Every rank returns the same code, because all take part in every decision.
int run(int rank, int ranks, int argc, char** argv) {
    Header header;
    int code = 0;
    if (rank == 0) {
        code = code_of([&] {
            check_launcher(ranks);
            if (argc != 3) throw Failure{kUsage, "usage: bitcount BITS COUNTS"};
            header = read_header(argv[1]);
        });
    }
    MPI_Bcast(&code, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (code != 0) return code;
    MPI_Bcast(&header.qubits, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    MPI_Bcast(&header.shots, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    tell_shares(rank, ranks, header.shots);

    std::vector<std::uint64_t> mine, all(rank == 0 ? header.bitstrings() : 0);
    code = code_of([&] {
        mine = histogram(argv[1], header, header.shots * rank / ranks,
                         header.shots * (rank + 1) / ranks);
    });
    int worst = 0;
    MPI_Allreduce(&code, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    if (worst != 0) return worst;
    MPI_Reduce(mine.data(), all.data(), static_cast<int>(header.bitstrings()), MPI_UINT64_T,
               MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank == 0) code = code_of([&] { write_atomic(argv[2], json(header, ranks, all)); });
    MPI_Bcast(&code, 1, MPI_INT, 0, MPI_COMM_WORLD);
    return code;
}

}  // namespace

int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    int rank = 0, ranks = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    const int code = run(rank, ranks, argc, argv);
    MPI_Finalize();
    return code;
}
