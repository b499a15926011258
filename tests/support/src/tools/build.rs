//! Builds a tool once per machine, shows that it is alive, and lets nobody see half a file.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Tool, cache, content_hash, go};
use crate::warden::Warden;

/// Lines of the compiler's output that are shown when it fails.
const SHOWN_LINES: usize = 20;

/// The built program, from the cache or built now.
pub(super) fn ensure(tool: &Tool) -> Result<PathBuf> {
    ensure_in(&cache()?, tool)
}

fn ensure_in(cache: &Path, tool: &Tool) -> Result<PathBuf> {
    let version = tool.version()?;
    let flags = tool.linker_flags(&version);
    let folder = cache.join(format!(
        "{}-{}",
        tool.name,
        content_hash(&tool.folder(), &flags)?
    ));
    let program = folder.join(tool.name);
    if program.is_file() {
        return Ok(program);
    }
    let _lock = lock(&cache.join("build.lock"), tool)?;
    // Whoever held the lock before may have built it.
    if !program.is_file() {
        std::fs::create_dir_all(&folder)?;
        let partial = folder.join(format!("{}.partial", tool.name));
        let go_mod = std::fs::read_to_string(tool.folder().join("go.mod"))?;
        let go = go::toolchain(&go_mod, cache)?;
        let name = format!("{} {version} ({})", tool.name, tool.contents);
        run(&mut command(&go, tool, &flags, &partial), &name)?;
        std::fs::rename(&partial, &program)
            .with_context(|| format!("cannot move the build to {}", program.display()))?;
    }
    Ok(program)
}

/// One build at a time on a machine: two would only take each other's processors.
fn lock(path: &Path, tool: &Tool) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("{}: waiting for another build on this machine", tool.name);
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    Ok(file)
}

fn command(go: &Path, tool: &Tool, flags: &str, output: &Path) -> Command {
    let mut command = Command::new(go);
    command
        .current_dir(tool.folder())
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .args([
            "build",
            "-v",
            "-mod=readonly",
            "-buildvcs=false",
            "-trimpath",
            "-ldflags",
            flags,
        ])
        .arg("-o")
        .arg(output)
        .arg(tool.package);
    command
}

/// Runs the compiler, with a sign of life while it runs and its last lines if it fails.
fn run(command: &mut Command, name: &str) -> Result<()> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let warden = Warden::get()?;
    warden.watch(child.id());
    let stderr = child
        .stderr
        .take()
        .context("the compiler has no standard error")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut progress = Progress::new(name, start);
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => progress.line(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        progress.show();
    }
    let status = child.wait()?;
    warden.release(child.id());
    progress.end();
    if !status.success() {
        let last = progress.last.make_contiguous().join("\n");
        bail!("building {name} failed ({status}):\n{last}");
    }
    eprintln!("built {name} in {} s", start.elapsed().as_secs());
    Ok(())
}

/// What is being built and for how long: one line that is written over on a terminal, a line now
/// and then in a log.
struct Progress<'a> {
    name: &'a str,
    start: Instant,
    shown: Option<Instant>,
    lines: usize,
    last: VecDeque<String>,
    on_terminal: bool,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str, start: Instant) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self {
            name,
            start,
            shown: None,
            lines: 0,
            last: VecDeque::new(),
            on_terminal,
        }
    }

    fn line(&mut self, line: String) {
        self.lines += 1;
        self.last.push_back(line);
        if self.last.len() > SHOWN_LINES {
            self.last.pop_front();
        }
    }

    fn show(&mut self) {
        let pause = Duration::from_secs(if self.on_terminal { 1 } else { 15 });
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let seconds = self.start.elapsed().as_secs();
        let now = self.last.back().map_or("starting", String::as_str);
        let text = format!(
            "building {}: {seconds} s, {} packages, {now}",
            self.name, self.lines
        );
        if self.on_terminal {
            let text: String = text.chars().take(110).collect();
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&self) {
        if self.on_terminal {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// A module that pins another, as the real ones do, but compiles in no time.
    fn module(folder: &Path, source: &str) -> Tool {
        let files = [
            (
                "go.mod",
                "module m\n\ngo 1.21\n\nrequire example.com/pinned v1.2.3\n\n\
                 replace example.com/pinned => ./pinned\n",
            ),
            ("main.go", source),
            ("pinned/go.mod", "module example.com/pinned\n"),
            ("pinned/pinned.go", "package pinned\n"),
        ];
        std::fs::create_dir(folder.join("pinned")).unwrap();
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
        Tool {
            name: "tiny",
            module: folder.to_str().unwrap().to_owned().leak(),
            package: ".",
            version_of: "example.com/pinned",
            contents: "a test",
            variables: |version| vec![format!("main.version={version}")],
        }
    }

    #[test]
    fn builds_at_the_same_time_make_one_program_that_knows_its_version() {
        let [folder, cache] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let source = "package main\nimport _ \"example.com/pinned\"\n\
                      var version string\nfunc main() { print(version) }\n";
        let tool = module(folder.path(), source);
        let programs = std::thread::scope(|scope| {
            let build = || ensure_in(cache.path(), &tool).unwrap();
            [scope.spawn(build), scope.spawn(build)].map(|thread| thread.join().unwrap())
        });
        assert_eq!(programs[0], programs[1]);
        let output = Command::new(&programs[0]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "v1.2.3");
        // A third call finds it; a changed source is another program.
        let inode = || programs[0].metadata().unwrap().ino();
        let before = inode();
        ensure_in(cache.path(), &tool).unwrap();
        assert_eq!(inode(), before);
        std::fs::write(
            folder.path().join("main.go"),
            source.replace("print(", "println("),
        )
        .unwrap();
        assert_ne!(ensure_in(cache.path(), &tool).unwrap(), programs[0]);
    }

    #[test]
    fn a_build_that_fails_shows_the_last_lines_of_the_compiler_and_leaves_no_program() {
        let [folder, cache] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let tool = module(folder.path(), "package main\nfunc main() { missing() }\n");
        let error = ensure_in(cache.path(), &tool).unwrap_err().to_string();
        assert!(error.contains("undefined: missing"), "{error}");
        assert!(ensure_in(cache.path(), &tool).is_err());
    }
}
