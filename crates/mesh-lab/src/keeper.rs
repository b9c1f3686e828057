//! What remains when this process is killed: a shell that then ends everything the lab has started.
//!
//! The keeper is a child in a process group of its own, so that a terminal's Ctrl-C does not reach it. It reads
//! the process groups to keep from a pipe, `+PGID` and `-PGID`, and whoever holds the other end of that pipe is
//! only this process. When the pipe ends, because the lab has stopped or because the process is gone in
//! whatever way, the keeper ends the groups that are left: hung ones are woken, all are asked to end, and what
//! does not within five seconds is killed. It asks again and again: a broker that is just starting forgets that
//! it was asked. It is plain `sh`, because nothing else is there on every Unix.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::Pid;

const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM TSTP
groups=' '
while read -r line; do
    group=${line#?}
    case $line in
        +*) groups="$groups$group " ;;
        -*) case $groups in *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;; esac ;;
    esac
done
each() { for group in $groups; do kill "$1" "-$group"; done 2>/dev/null; }
any() { for group in $groups; do kill -0 "-$group" && return 0; done 2>/dev/null; return 1; }
tries=0
while any && [ "$tries" -lt 50 ]; do
    each -TERM
    each -CONT
    sleep 0.1
    tries=$((tries + 1))
done
each -KILL
"#;

/// A running keeper; see the module.
#[derive(Debug)]
pub(crate) struct Keeper {
    shell: Mutex<Option<(Child, ChildStdin)>>,
}

impl Keeper {
    pub(crate) fn start() -> io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "mesh-lab-keeper"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()?;
        let pipe = child
            .stdin
            .take()
            .ok_or_else(|| io::Error::other("the keeper has no pipe"))?;
        Ok(Self {
            shell: Mutex::new(Some((child, pipe))),
        })
    }

    /// From now on the group is ended when this process is gone.
    pub(crate) fn keep(&self, group: Pid) -> io::Result<()> {
        self.tell(&format!("+{}\n", group.as_raw_nonzero()))
    }

    /// The group has ended; its number may soon be that of something else.
    pub(crate) fn forget(&self, group: Pid) -> io::Result<()> {
        self.tell(&format!("-{}\n", group.as_raw_nonzero()))
    }

    /// Ends the keeper, and with it what it still keeps.
    pub(crate) fn dismiss(&self) {
        let shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((mut child, pipe)) = shell {
            drop(pipe);
            // It fails only if the keeper was reaped before, which is what we want.
            child.wait().ok();
        }
    }

    fn tell(&self, line: &str) -> io::Result<()> {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        match shell.as_mut() {
            Some((_, pipe)) => pipe.write_all(line.as_bytes()),
            None => Err(io::Error::other("the keeper was dismissed")),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.dismiss();
    }
}
