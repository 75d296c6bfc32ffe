//! Giving memory back.
//!
//! An exposition of many clients is some megabytes of text, needed for a moment. glibc gives such a piece back to the
//! system at once, but learns from it: as soon as one was freed, pieces of that size come from its arenas, where they
//! stay, once for every thread that ever answered. Under 5,000 connections of 500 instances that was 51 MB growing in
//! steps to 67 MB within two minutes; with the limit that glibc starts with, made lasting, it is 48 to 52 MB.
//!
//! Source: mallopt(3) § `M_MMAP_THRESHOLD`.

/// From this length on a piece of memory is the system's again when it is freed; what glibc begins with.
#[cfg(target_env = "gnu")]
const RETURNED_LEN_MIN: libc::c_int = 128 * 1024;

/// Keeps the allocator from learning to hold on to large pieces. To be called before there are other threads.
#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "no safe crate sets the parameters of the C library's allocator"
)]
pub(super) fn give_large_pieces_back() {
    let settings = [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD];
    for setting in settings {
        // SAFETY: it takes two integers, and refuses what it does not know. No other thread allocates yet.
        let is_set = unsafe { libc::mallopt(setting, RETURNED_LEN_MIN) };
        if is_set != 1 {
            tracing::debug!(setting, "the allocator does not take a setting");
        }
    }
}

/// Other C libraries have nothing to set.
#[cfg(not(target_env = "gnu"))]
pub(super) const fn give_large_pieces_back() {}

#[cfg(test)]
mod tests {
    #[cfg(target_env = "gnu")]
    use std::process::Command;

    #[cfg(target_env = "gnu")]
    use super::*;

    /// Set for the process in which a test runs alone.
    #[cfg(target_env = "gnu")]
    const ALONE: &str = "POOLSCOPE_TEST_ALONE";

    /// Resident bytes of this process.
    #[cfg(target_env = "gnu")]
    fn resident() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn large_pieces_are_given_back_whenever_they_are_freed() {
        // What is resident is the process's, and other tests may run in this one.
        if std::env::var_os(ALONE).is_none() {
            let (_, module) = module_path!().split_once("::").unwrap();
            let own = format!("{module}::large_pieces_are_given_back_whenever_they_are_freed");
            let alone = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &own])
                .env(ALONE, "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&alone.stdout);
            assert!(
                alone.status.success() && said.contains("1 passed"),
                "{said}"
            );
            return;
        }
        give_large_pieces_back();
        let before = resident();
        for _ in 0..8 {
            // One that stays keeps an arena from shrinking at its end.
            let large = vec![1_u8; 4 << 20];
            let stays = vec![1_u8; 1000];
            assert!(resident() >= before + (3 << 20));
            drop(large);
            std::mem::forget(stays);
        }
        assert!(
            resident() < before + (2 << 20),
            "{before} became {}",
            resident()
        );
    }
}
