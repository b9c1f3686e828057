//! The three parsers: what is not understood is kept as it is, and nothing panics.
#![no_main]

use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use mesh_logs::core::{Format, Parser, Place, journal};

fuzz_target!(|line: &[u8]| {
    for format in [Format::Auto, Format::Mosquitto, Format::Nginx, Format::Mesh] {
        let mut parser = Parser::new(format, Place::default(), TimeZone::UTC);
        let parsed = parser.parse(line, 7);
        if !parsed.understood {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            assert_eq!(parsed.record.body, String::from_utf8_lossy(line));
        }
        journal::parse(&mut parser, line);
    }
});
