//! A terminal with a shell in it, of a size that can change, at which a test types.

use std::process::Command;

use super::command::{Spawned, tool};
use super::wait_until;

/// A terminal. Dropping it ends what runs in it.
pub(crate) struct Terminal {
    directory: tempfile::TempDir,
}

impl Terminal {
    /// One of `columns` and `rows`.
    #[track_caller]
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        let directory = tempfile::Builder::new()
            .prefix(&format!("nt-{}-tmux-", std::process::id()))
            .tempdir()
            .expect("make a directory for the terminal");
        let terminal = Self { directory };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let shell = "exec env PS1='host> ' sh";
        let config = terminal.directory.path().join("config");
        std::fs::write(&config, "set -g status off\n").expect("write tmux's configuration");
        let config = config.to_string_lossy().into_owned();
        terminal.tmux(&[
            "-f",
            &config,
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            shell,
        ]);
        terminal.until_prompt();
        terminal
    }

    #[track_caller]
    fn tmux(&self, words: &[&str]) -> String {
        let mut command = Command::new(tool("tmux"));
        command
            .env_remove("TMUX")
            .env("TERM", "xterm")
            .arg("-S")
            .arg(self.directory.path().join("socket"))
            .args(words);
        Spawned::new(command, None).finish().ok()
    }

    /// Types a line.
    #[track_caller]
    pub(crate) fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.keys(&["Enter"]);
    }

    /// Presses keys by tmux's names, as `C-c`.
    #[track_caller]
    pub(crate) fn keys(&self, keys: &[&str]) {
        let words: Vec<&str> = ["send-keys"].iter().chain(keys).copied().collect();
        self.tmux(&words);
    }

    #[track_caller]
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// What it shows, lines that are too long put together again.
    #[track_caller]
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-J", "-S", "-"])
    }

    /// Waits until its own shell wants the next line.
    #[track_caller]
    pub(crate) fn until_prompt(&self) {
        wait_until("the terminal's shell wants a line", || {
            self.screen().trim_end().ends_with("host>")
        });
    }

    /// Waits until it shows `text`.
    #[track_caller]
    pub(crate) fn until(&self, text: &str) {
        wait_until(&format!("the terminal shows {text:?}"), || {
            self.screen().contains(text)
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the terminal\n{}---", self.screen());
        }
        let mut command = Command::new(tool("tmux"));
        command
            .arg("-S")
            .arg(self.directory.path().join("socket"))
            .arg("kill-server");
        let _ = Spawned::new(command, None).finish(); // it may have ended
    }
}

/// A command as it is typed into a shell.
pub(crate) fn typed(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let value = value?.to_string_lossy().into_owned();
        Some(format!("{}='{value}'", name.to_string_lossy()))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| format!("'{}'", word.to_string_lossy()));
    variables.chain(words).collect::<Vec<_>>().join(" ")
}
