//! A program on a pseudo-terminal: it believes to have a user in front of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use rustix::termios::tcsetwinsize;

use crate::cluster::{PATIENCE, text};

/// A running program, and the user's side of its terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    user: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Starts a program as the leader of a session on a new terminal of this size.
    pub fn start(program: &Command, rows: u16, columns: u16) -> io::Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None)?;
        // Only who leads a session can have a controlling terminal, and so be told of a new size or of Ctrl-C.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(directory) = program.get_current_dir() {
            command.current_dir(directory);
        }
        let inside = pty.slave;
        let child = command.stdin(inside.try_clone()?).stdout(inside.try_clone()?).stderr(inside).spawn()?;
        let user = File::from(pty.master);
        let mut reader = user.try_clone()?;
        let (to_screen, screen) = sync_channel(64);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails once nobody has the other side any more.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if to_screen.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, user, screen, seen: String::new() })
    }

    /// Types text.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        self.user.write_all(text.as_bytes())
    }

    /// Changes the size of the window.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.user, size)?)
    }

    /// Waits until the screen shows a text, and returns what it showed up to its end. Later calls look behind that.
    pub fn until(&mut self, wanted: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(wanted) {
                let rest = self.seen.split_off(at + wanted.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            match self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&text(&bytes)),
                Err(why) => panic!("the screen does not show {wanted:?} ({why}), but {:?}", self.seen),
            }
        }
    }

    /// Waits until the program ends: the rest of what it showed, and its exit code.
    pub fn end(mut self) -> (String, Option<i32>) {
        let end = Instant::now() + PATIENCE;
        while let Ok(bytes) = self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push_str(&text(&bytes));
        }
        if end.saturating_duration_since(Instant::now()) == Duration::ZERO {
            let _ = self.child.kill();
            let _ = self.child.wait();
            panic!("the program does not end; the screen shows {:?}", self.seen);
        }
        (self.seen, self.child.wait().ok().and_then(|status| status.code()))
    }
}
