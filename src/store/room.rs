//! Room on the disk for the index of the log, which SQLite maps into memory.
//!
//! Who writes to a mapped page that a full disk has no room for is ended by the kernel, and whatever it wraps with it.
//! SQLite provides for that by a byte in each 4096; on small file systems, whose blocks are smaller, it does not.

use std::path::Path;

#[cfg(target_os = "linux")]
pub(super) use linux::{fill, is_lacking};

/// Elsewhere no file system has blocks that small.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_lacking(_cache: &Path) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
pub(super) fn fill(_cache: &Path) {}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::mem;
    use std::sync::Once;

    use nix::fcntl::{FallocateFlags, fallocate};
    use nix::sys::statvfs::{Statvfs, statvfs};
    use nix::unistd::geteuid;

    use super::Path;
    use crate::store::repair;

    /// What SQLite takes for the smallest block.
    const BLOCK: u64 = 4096;
    /// How long the index is at first.
    const INDEX: i64 = 32 * 1024;
    /// The least room that is enough for all of it, and for what the file system notes of it.
    const ROOM: u64 = 2 * INDEX.cast_unsigned();

    /// Whether there is too little room for the index, asked before SQLite maps it.
    pub(in crate::store) fn is_lacking(cache: &Path) -> bool {
        statvfs(cache).is_ok_and(|found| {
            let free = if geteuid().is_root() { found.blocks_free() } else { found.blocks_available() };
            has_small_blocks(&found) && is_too_little(free, found.blocks(), found.fragment_size())
        })
    }

    /// Whether so many free blocks of so many are too little.
    fn is_too_little(free: u64, blocks: u64, block: u64) -> bool {
        // Some file systems do not say how many they have.
        blocks > 0 && free.saturating_mul(block) < ROOM
    }

    /// Takes the room for the index that is mapped, so that it stays ours when the disk is full later.
    pub(in crate::store) fn fill(cache: &Path) {
        /// It stays as long as anybody has it mapped, as a process has its cache until it ends.
        static FILLED: Once = Once::new();
        if statvfs(cache).is_ok_and(|found| has_small_blocks(&found)) {
            FILLED.call_once(|| {
                if let Ok(index) = repair::lock_file(&repair::with_suffix(cache, "-shm"), false) {
                    take(&index);
                    // To close it would give up SQLite's own locks on it, which belong to the process.
                    mem::forget(index);
                }
            });
        }
    }

    fn take(index: &File) {
        // Where it cannot be taken, it is as it would have been.
        let _ = fallocate(index, FallocateFlags::empty(), 0, INDEX);
    }

    fn has_small_blocks(found: &Statvfs) -> bool {
        found.fragment_size() < BLOCK
    }

    #[cfg(test)]
    mod tests {
        use std::os::unix::fs::MetadataExt;

        use super::*;

        #[test]
        fn all_room_for_an_index_is_taken_and_what_is_in_it_stays() {
            use std::os::unix::fs::FileExt;
            let file = tempfile::tempfile().expect("a file");
            file.write_all_at(b"a", BLOCK - 1).expect("written");
            file.set_len(INDEX.cast_unsigned()).expect("a hole");
            take(&file);
            let metadata = file.metadata().expect("there");
            assert_eq!(metadata.len(), INDEX.cast_unsigned());
            assert!(metadata.blocks() * 512 >= metadata.len(), "{}", metadata.blocks());
            let mut byte = [0];
            file.read_exact_at(&mut byte, BLOCK - 1).expect("read");
            assert_eq!(&byte, b"a");
        }

        #[test]
        fn a_full_disk_has_too_little_room() {
            assert!(is_too_little(0, 2012, 1024));
            assert!(is_too_little(63, 2012, 1024));
            assert!(!is_too_little(64, 2012, 1024));
            assert!(!is_too_little(0, 0, 512), "nobody knows");
        }

        #[test]
        fn where_nothing_is_known_of_the_disk_there_is_room() {
            assert!(!is_lacking(Path::new("/nowhere/cache.db")));
            assert!(!is_lacking(Path::new("/proc/self/stat")));
        }
    }
}
