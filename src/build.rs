//! Build script: a release, which never unwinds (src/fault.rs says what a panic does), carries less for that.
//!
//! The standard library refers to libgcc's unwinder, so that each start would find, map and relocate a library for nothing:
//! a tenth of a millisecond. The same functions are in the compiler's archive `libgcc_eh.a`. The index by which they would
//! find their way through the program is left out; debuggers and profilers do without it.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=src/build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let is_native = env::var("HOST").ok() == env::var("TARGET").ok();
    let is_glibc = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !(is("PROFILE", "release") && is_native && is_glibc && has_archive()) {
        return;
    }
    // For a linker a text file in a library's place says what to take instead.
    let Some(dir) = env::var_os("OUT_DIR") else { return };
    if fs::write(Path::new(&dir).join("libgcc_s.so"), "INPUT(-lgcc_eh)\n").is_ok() {
        println!("cargo:rustc-link-search=native={}", Path::new(&dir).display());
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
}

/// Whether the compiler that links has the archive: it names a file that it has by its whole path.
fn has_archive() -> bool {
    let asked = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    asked.is_ok_and(|answer| Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_absolute())
}
