//! The program; everything is in the library beside it.

use std::process::ExitCode;

/// Serves librdkafka and TLS as well. A record is a dozen pieces of memory that one thread allocates and another frees:
/// the system's allocator takes a quarter of all CPU time for that (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    viaduct::main()
}
