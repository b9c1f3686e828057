//! A thread that shares no file descriptors with the broker.
//!
//! While several threads share one table of descriptors, the kernel counts references at each system call that names
//! one. The broker makes a dozen such calls for a message, and pays several percent of its processor time for a thread
//! that does nothing at all. So each of ours gives up the common table for one of its own.
//!
//! What is opened before does not belong to the thread, and what it opens has a meaning in the thread only.

use std::ffi::{c_int, c_long, c_uint};

/// `close_range`, which has the same number on all architectures. glibc knows it since 2.34.
const CLOSE_RANGE: c_long = 436;
/// `CLOSE_RANGE_UNSHARE`: before anything is closed, the thread gets a table of its own.
const UNSHARE: c_int = 1 << 1;
/// The first descriptor behind standard input, output and error.
const FIRST: c_uint = 3;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// Gives the calling thread a table of descriptors of its own, without the broker's. Kernels before 5.9 cannot, and
/// then everything is as it was.
///
/// To be called first in a thread, which must not have been given anything with a descriptor in it.
pub fn leave_descriptors() {
    if cfg!(target_os = "linux") {
        // SAFETY: the call takes three numbers. It closes descriptors in the new table alone, and by the contract above
        // nothing in this thread owns one of them.
        unsafe { syscall(CLOSE_RANGE, FIRST, c_uint::MAX, UNSHARE) };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs::{File, read_dir};
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::path::Path;
    use std::sync::mpsc::sync_channel;

    /// The open descriptors of the calling thread, but for the first three.
    fn open() -> Vec<i32> {
        let folder = Path::new("/proc/thread-self/fd");
        let names = read_dir(folder).unwrap();
        let listed: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        // One of them was that of the list itself.
        let open = listed.iter().filter(|name| folder.join(name).exists());
        let numbers = open.map(|name| name.parse().unwrap());
        numbers.filter(|descriptor| *descriptor > 2).collect()
    }

    #[test]
    fn neither_side_has_the_descriptors_of_the_other() {
        let mut before = File::open("/proc/self/stat").unwrap();
        let (tell, told) = sync_channel(0);
        let (leave, left) = sync_channel::<()>(0);
        let thread = std::thread::spawn(move || {
            leave_descriptors();
            let none = open();
            let files: Vec<File> = (0..50)
                .map(|_| File::open("/proc/self/status").unwrap())
                .collect();
            tell.send((none, files.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>()))
                .unwrap();
            left.recv().unwrap();
        });
        let (none, files) = told.recv().unwrap();
        assert_eq!(none, [0; 0]);
        assert!(
            files.contains(&before.as_raw_fd()),
            "the numbers are given out again"
        );
        leave.send(()).unwrap();
        thread.join().unwrap();
        let mut text = String::new();
        assert!(
            before.read_to_string(&mut text).unwrap() > 0,
            "ours is still open"
        );
    }
}
