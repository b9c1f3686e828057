//! A shipper that many know, on the same files: rsyslog's file input, into one file.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::lines::Lines;
use super::report::Shipper;
use crate::commands::bench::usage;

const PATIENCE: Duration = Duration::from_secs(600);

/// What it does not do, beside being for other ends.
const NOT: &str = "parses nothing, indexes nothing, tracks no sessions, writes a text file; its place in a file is saved \
     every few thousand lines or at its end, so that after a kill lines come twice";

pub(super) fn measure(folder: &Path, lines: &Lines) -> Shipper {
    match try_measure(folder, lines) {
        Ok(shipper) => shipper,
        Err(error) => Shipper {
            left_out: Some(format!("{error:#}")),
            ..Shipper::default()
        },
    }
}

fn try_measure(folder: &Path, lines: &Lines) -> anyhow::Result<Shipper> {
    let program = mesh_lab::system_program("rsyslogd", "install it: `apt install rsyslog`")?;
    let work = folder.join("rsyslog");
    std::fs::create_dir(&work)?;
    let output = work.join("all.log");
    let mut text = format!(
        "global(workDirectory=\"{}\")\nmodule(load=\"imfile\" mode=\"inotify\")\ntemplate(name=\"raw\" type=\"string\" \
         string=\"%msg%\\n\")\n",
        work.display()
    );
    for path in lines.paths() {
        writeln!(
            text,
            "input(type=\"imfile\" File=\"{}\" Tag=\"x\" ruleset=\"all\")",
            path.display()
        )?;
    }
    writeln!(
        text,
        "ruleset(name=\"all\") {{ action(type=\"omfile\" file=\"{}\" template=\"raw\" flushOnTXEnd=\"off\" \
         asyncWriting=\"off\" ioBufferSize=\"256k\") }}",
        output.display()
    )?;
    let config = work.join("rsyslog.conf");
    std::fs::write(&config, text)?;
    let began = Instant::now();
    let mut child = Command::new(program)
        .arg("-n")
        .arg("-f")
        .arg(&config)
        .arg("-i")
        .arg(work.join("pid"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // It adds nothing to a line and takes nothing away, so its output is complete when it is as long as the input.
    let wanted = lines.bytes();
    let mut done = false;
    while began.elapsed() < PATIENCE && !done {
        std::thread::sleep(Duration::from_millis(20));
        let written = std::fs::metadata(&output).map_or(0, |file| file.len());
        // The last buffer is written at its end only.
        done = written + 256 * 1024 >= wanted || child.try_wait()?.is_some();
    }
    let took = began.elapsed();
    let cpu = usage::cpu_of_process(child.id());
    let peak = usage::peak_of(child.id());
    child.kill()?;
    child.wait()?;
    anyhow::ensure!(done, "rsyslog did not read the files within {PATIENCE:?}");
    Ok(Shipper {
        name: "rsyslog, imfile to omfile",
        seconds: Some(took.as_secs_f64()),
        lines_per_s: Some(lines.count() as f64 / took.as_secs_f64()),
        cpu_s: cpu.map(|cpu| cpu.as_secs_f64()),
        peak_mib: peak.map(|peak| peak as f64 / 1024.0 / 1024.0),
        does_not: NOT,
        left_out: None,
    })
}
