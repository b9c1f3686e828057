//! How the broker's memory is given back.
//!
//! glibc puts small pieces that are freed aside (fastbins), and merges them all with their neighbours when the next larger
//! piece is asked for. Thousands of messages later that is one call which takes 10 to 150 ms: with a million retained
//! messages, `perf` saw nothing else in the broker's longest standstills. Without that, each piece is merged when it is
//! freed. For a message that costs nothing that could be measured, since the first pieces of each size stand in a
//! cache of the thread in any case.

/// Has this process merge what it frees at once. On other systems than glibc's there is nothing to do.
pub fn merge_at_once() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        /// `M_MXFAST`: the largest piece that is put aside, in bytes.
        const LARGEST: c_int = 1;

        // SAFETY: both are plain numbers. glibc takes its own lock; what was put aside so far is merged here.
        let taken = unsafe { mallopt(LARGEST, 0) };
        debug_assert_eq!(taken, 1, "0 is in its bounds");
    }
}
