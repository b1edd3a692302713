//! The `ringgate` binary: see `ringgate::cli`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringgate::cli::run(std::env::args_os())
}
