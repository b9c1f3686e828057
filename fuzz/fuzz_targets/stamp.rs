//! The stamp that arrives with a message: every text is a stamp that is written as it was read, or none. Of version 1 it is
//! written in version 2, which is the same stamp.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_plugin::stamp::{Clock, Stamp, is_absurd};

fuzz_target!(|text: &str| {
    if let Some(stamp) = Stamp::parse(text) {
        let mut written = String::new();
        stamp.write(&mut written);
        assert!(written == text || text.starts_with("1 "));
        assert_eq!(Stamp::parse(&written), Some(stamp.clone()));
        assert!(written.len() <= Stamp::LONGEST);
        // A clock goes on after whatever it was told.
        let mut clock = Clock::default();
        clock.observe(stamp.time);
        assert!(clock.next(0) >= stamp.time);
        is_absurd(stamp.time, 1_800_000_000_000);
    }
});
