//! Every form of report, from made-up runs: for looking at after a change to them.
//!
//! `cargo run -p pilotlight-sim --example report_gallery -- <folder>` prints the tables and charts, and writes the
//! HTML pages into the folder.
#![expect(clippy::disallowed_methods, reason = "a program has arguments and an environment")]

#[path = "../tests/report/samples.rs"]
mod samples;

use std::path::PathBuf;
use std::{env, fs, io};

use pilotlight_sim::report::{html, text};

fn main() -> io::Result<()> {
    let folder = PathBuf::from(env::args().nth(1).unwrap_or_else(|| "report-gallery".into()));
    fs::create_dir_all(&folder)?;
    let style = text::Style { color: env::var_os("NO_COLOR").is_none(), width: 80, charts: true };
    for (name, page) in
        [("run", samples::single()), ("compare", samples::comparison()), ("tune", samples::search())]
    {
        println!("{}", text::page(&page, style));
        let path = folder.join(name).with_extension("html");
        fs::write(&path, html::page(&page))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
