//! Files of a crate use each other one way: whoever reads one file can put the others aside.
//!
//! A file uses another if a path in it leads there: `crate::a::Item`, `super::a::Item`, `a::Item` of a child. A path to
//! a re-export leads to where the item is. What a file uses of those above it (`a/b.rs` of `a.rs`, all of `lib.rs`) does
//! not count: children see their parent's items, which is Rust's way of sharing them.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;
use crate::{Crate, crates};

#[test]
fn files_of_a_crate_use_each_other_one_way() {
    let (mut wrong, mut arrows) = (Vec::new(), 0);
    for Crate { name, sources } in crates() {
        let uses = Modules::of(&sources).uses();
        arrows += uses.values().map(BTreeMap::len).sum::<usize>();
        for circle in circles(&uses) {
            let arrows = circle.iter().flat_map(|from| uses[from].iter().map(move |to| (from, to)));
            wrong.extend(
                arrows
                    .filter(|(_, (to, _))| circle.contains(to))
                    .map(|(from, (to, line))| format!("{name}: {from}:{line} uses {to}, which leads back")),
            );
        }
    }
    assert!(arrows > 100, "only {arrows} uses were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `net::h1::link` as `["h1", "link"]`.
type Module = Vec<String>;
/// File to file, with the line of the first use.
type Uses = BTreeMap<String, BTreeMap<String, usize>>;

/// The files of a crate's library by the modules they are.
struct Modules<'a> {
    files: BTreeMap<Module, File<'a>>,
}

struct File<'a> {
    name: String,
    tokens: Vec<(usize, &'a str)>,
    /// Names that `use` brings in, and the paths they stand for.
    names: Vec<(String, Module)>,
}

impl<'a> Modules<'a> {
    fn of(sources: &'a [Source]) -> Self {
        let mut files = BTreeMap::new();
        for source in sources {
            if let Some((module, name)) = module_of(&source.path) {
                files.insert(module, File { name, tokens: tokens(&source.code), names: Vec::new() });
            }
        }
        let mut modules = Self { files };
        for module in modules.files.keys().cloned().collect::<Vec<_>>() {
            let names =
                modules.paths(&module).into_iter().filter_map(|path| Some((path.name?, path.segments)));
            let names = names.collect();
            modules.files.entry(module).and_modify(|file| file.names = names);
        }
        modules
    }

    fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (module, file) in &self.files {
            let targets = uses.entry(file.name.clone()).or_default();
            for path in self.paths(module).iter().filter(|path| !path.is_re_export) {
                let target = self.home_of(&path.segments, 0);
                if !module.starts_with(target) {
                    targets.entry(self.files[target].name.clone()).or_insert(path.line);
                }
            }
        }
        uses
    }

    /// The module in which the item is defined that a path names.
    fn home_of<'b>(&'b self, path: &'b [String], re_exports: usize) -> &'b [String] {
        let length = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]));
        let (module, rest) = path.split_at(length.expect("every crate has a root"));
        let (Some(item), true) = (rest.first(), re_exports < MAX_RE_EXPORTS) else { return module };
        let file = &self.files[module];
        let by_name = file.names.iter().find(|(name, _)| name == item);
        let by_glob = || {
            let mut globs = file.names.iter().filter(|(name, _)| name == "*");
            globs.find(|(_, path)| self.files.get(path).is_some_and(|file| file.defines(item)))
        };
        match by_name.or_else(by_glob) {
            Some((name, path)) if name != "*" => self.home_of(path, re_exports + 1),
            Some((_, path)) => path,
            None => module,
        }
    }

    /// All paths in a file that begin in its crate, tests apart.
    fn paths(&self, module: &Module) -> Vec<Path> {
        let mut reader = Reader {
            modules: self,
            module: module.clone(),
            tokens: &self.files[module].tokens,
            found: Vec::new(),
        };
        reader.read();
        reader.found
    }
}

impl File<'_> {
    fn defines(&self, item: &str) -> bool {
        self.tokens.windows(2).any(|pair| pair[1].1 == item && DEFINES.contains(&pair[0].1))
    }
}

struct Path {
    line: usize,
    segments: Module,
    /// The name that a `use` gives it, or `*`.
    name: Option<String>,
    is_re_export: bool,
}

struct Reader<'a> {
    modules: &'a Modules<'a>,
    /// The file's, and within it the inline module's.
    module: Module,
    tokens: &'a [(usize, &'a str)],
    found: Vec<Path>,
}

impl Reader<'_> {
    fn read(&mut self) {
        let (mut at, mut depth, mut inline) = (0, 0, Vec::new());
        while at < self.tokens.len() {
            let is_start = at == 0 || !["::", "."].contains(&self.token(at - 1));
            match self.token(at) {
                "mod" if self.token(at + 2) == "{" && self.token(at + 1) == "tests" => {
                    at = self.block_end(at + 2);
                }
                "mod" if self.token(at + 2) == "{" => {
                    inline.push(depth);
                    self.module.push(self.token(at + 1).into());
                    at += 1;
                }
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if inline.pop_if(|opened| *opened == depth).is_some() {
                        self.module.pop();
                    }
                }
                "use" => {
                    let is_re_export = at > 0 && ["pub", ")"].contains(&self.token(at - 1));
                    at = self.tree(at + 1, Vec::new(), is_re_export);
                }
                word if is_start && is_name(word) && self.token(at + 1) == "::" => {
                    let (line, mut path) = (self.tokens[at].0, vec![word.to_owned()]);
                    while self.token(at + 1) == "::" && is_name(self.token(at + 2)) {
                        at += 2;
                        path.push(self.token(at).into());
                    }
                    self.add(line, &path, None, false);
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Reads what `use` names from `at` on, below `prefix`; returns where that ends.
    fn tree(&mut self, mut at: usize, mut prefix: Module, is_re_export: bool) -> usize {
        loop {
            match self.token(at) {
                "{" => {
                    while self.token(at) != "}" {
                        at = self.tree(at + 1, prefix.clone(), is_re_export);
                    }
                    return at + 1;
                }
                "::" => at += 1,
                "," | ";" | "}" | "" => return at,
                word => {
                    let (line, is_last) = (self.tokens[at].0, self.token(at + 1) != "::");
                    if word != "*" && !(word == "self" && is_last) {
                        prefix.push(word.into());
                    }
                    at += 1;
                    if is_last {
                        let last = if word == "*" { "*" } else { prefix.last().map_or("", String::as_str) };
                        let alias = if self.token(at) == "as" { self.token(at + 1) } else { last };
                        let name = Some(alias.to_owned());
                        self.add(line, &prefix, name, is_re_export);
                        while ![",", ";", "}", ""].contains(&self.token(at)) {
                            at += 1;
                        }
                    }
                }
            }
        }
    }

    /// Adds a path, as seen from the root of the crate, if it begins in this crate.
    fn add(&mut self, line: usize, path: &[String], name: Option<String>, is_re_export: bool) {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        let (base, rest) = match path[0].as_str() {
            "crate" => (&self.module[..0], &path[1..]),
            "self" => (&self.module[..], &path[1..]),
            "super" => (&self.module[..self.module.len().saturating_sub(supers)], &path[supers..]),
            child if self.modules.files.contains_key(&[&self.module[..], &[child.to_owned()]].concat()) => {
                (&self.module[..], path)
            }
            _ => return,
        };
        self.found.push(Path { line, segments: [base, rest].concat(), name, is_re_export });
    }

    fn block_end(&self, open: usize) -> usize {
        let mut depth = 0;
        for at in open..self.tokens.len() {
            match self.token(at) {
                "{" => depth += 1,
                "}" if depth == 1 => return at,
                "}" => depth -= 1,
                _ => {}
            }
        }
        self.tokens.len()
    }

    fn token(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |(_, token)| token)
    }
}

/// Words, `::`, and single signs, each with its line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|each: char| !is_word(each)).unwrap_or(rest.len());
            let length = if word > 0 {
                word
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push((line, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

fn is_word(each: char) -> bool {
    each.is_alphanumeric() || each == '_'
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The module that a file of a library is, and its name below `src`.
fn module_of(path: &std::path::Path) -> Option<(Module, String)> {
    let words: Vec<_> = path.iter().map(|each| each.to_str().expect("a plain name")).collect();
    let ["src", file @ ..] = words.get(1..)? else { return None };
    let mut module: Module = file.iter().map(|each| each.trim_end_matches(".rs").to_owned()).collect();
    if module[0] == "bin" || module[0] == "main" || module.iter().any(|each| each == "tests") {
        return None;
    }
    module.pop_if(|last| last == "lib" || last == "mod");
    Some((module, file.join("/")))
}

/// Files that can be reached from each other, sorted, with more than one file.
fn circles(uses: &Uses) -> BTreeSet<Vec<String>> {
    let reached = |from: &String| {
        let mut open: Vec<&String> = uses[from].keys().collect();
        let mut seen = BTreeSet::new();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(uses[next].keys());
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        uses.keys().map(|from| (from, reached(from))).collect();
    let circle = |file: &String| {
        let with = reached[file].iter().filter(|other| reached[**other].contains(file));
        with.map(|other| (*other).clone()).collect::<Vec<_>>()
    };
    uses.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

/// Words in front of the name of what is defined.
const DEFINES: &[&str] = &["const", "enum", "fn", "static", "struct", "trait", "type", "union"];
/// More steps from a re-export to the item than anybody writes.
const MAX_RE_EXPORTS: usize = 8;

#[test]
fn circles_are_found_through_re_exports_and_inline_modules() {
    let sources = [
        ("lib.rs", "mod a; mod b; mod c; mod d; pub use b::{deep::Item as Thing, B}; pub struct Root;"),
        ("a.rs", "use crate::{Root, Thing}; pub(crate) struct A;"),
        ("b.rs", "pub mod deep; pub struct B; mod inline { use super::super::c::C; }"),
        ("b/deep.rs", "use super::B; pub struct Item(crate::a::A);"),
        ("c.rs", "pub struct C; mod tests { use crate::b::B; }"),
        ("d.rs", "fn d(_: super::B) { crate::c::C; }"),
    ];
    let sources =
        sources.map(|(file, code)| Source::parse(std::path::Path::new("some/src").join(file), code));
    let uses = Modules::of(&sources).uses();
    let of = |file: &str| uses[file].keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("a.rs"), ["b/deep.rs"]);
    assert_eq!(of("b.rs"), ["c.rs"]);
    assert_eq!(of("b/deep.rs"), ["a.rs"]);
    assert_eq!(of("c.rs"), [""; 0]);
    assert_eq!(of("d.rs"), ["b.rs", "c.rs"]);
    assert_eq!(circles(&uses), [vec!["a.rs".to_owned(), "b/deep.rs".into()]].into());
}
