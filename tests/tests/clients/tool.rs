//! A program that may or may not be here.

use std::process::{Command, Output, Stdio};

use tokio::task::spawn_blocking;

pub(crate) struct Tool {
    program: String,
    first: Vec<String>,
}

impl Tool {
    /// The program, if it can be started at all; says that the test is skipped otherwise.
    pub(crate) fn find(program: &str, harmless: &str) -> Option<Tool> {
        let started = Command::new(program).arg(harmless).stdin(Stdio::null()).output();
        if started.is_err() {
            println!("skipped: there is no {program}");
            return None;
        }
        Some(Tool { program: program.to_owned(), first: Vec::new() })
    }

    /// A Python that has this module; says that the test is skipped if there is none.
    pub(crate) fn python_with(module: &str) -> Option<Tool> {
        let has_it = |python: &&str| {
            let import = Command::new(python).args(["-c", &format!("import {module}")]).output();
            import.is_ok_and(|output| output.status.success())
        };
        // The second: what the system's packages are for, where another one comes first.
        let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_it) else {
            println!("skipped: there is no Python with {module}");
            return None;
        };
        Some(Tool { program: python.to_owned(), first: vec!["-c".to_owned()] })
    }

    /// Arguments that always come first.
    pub(crate) fn with(mut self, args: &[&str]) -> Tool {
        self.first.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// Runs it to its end, which must be a good one, and returns what it wrote.
    pub(crate) async fn run(&self, args: &[&str]) -> String {
        let output = self.output(args).await;
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        assert!(output.status.success(), "{}: {args:?}\n{stdout}\n{stderr}", output.status);
        stdout.into_owned()
    }

    async fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(&self.first).args(args).stdin(Stdio::null());
        // Every tool here is told how long it may take.
        spawn_blocking(move || command.output()).await.expect("no panic").expect("it starts")
    }
}
