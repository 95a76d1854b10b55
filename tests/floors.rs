//! Checks the floors of the sources against the table in ARCHITECTURE.md. Each folder uses only folders below it, no
//! files use each other in a circle, and the floors without input and output use no tokio, no http and no store.

#![allow(clippy::expect_used, clippy::panic, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{Spacing, TokenStream, TokenTree};
use quote::ToTokens as _;

/// The most lines that a source file may have.
const LINES: usize = 400;

/// The parts of a path, such as `["recorder", "lane", "Lane"]`.
type Parts = Vec<String>;

/// A source file.
struct File {
    module: Parts,
    lines: usize,
    /// The paths that the file uses, from the crate's root.
    uses: BTreeSet<Parts>,
    /// The names that the file re-exports, and their paths.
    exports: BTreeMap<String, Parts>,
    /// The first parts of all paths. They include the names of the crates that the file uses.
    roots: BTreeSet<String>,
}

struct Sources(BTreeMap<Parts, File>);

impl Sources {
    fn read() -> Self {
        let mut files = BTreeMap::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let inside = path.strip_prefix(&root).expect("inside").with_extension("");
                    let mut module: Parts = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                    module.pop_if(|last| matches!(last.as_str(), "mod" | "lib"));
                    // Unit tests may use everything, in a file or in a folder of their own.
                    if !module.iter().any(|part| part == "tests") {
                        let text = fs::read_to_string(&path).expect("a text");
                        files.insert(module.clone(), File::parse(module, &text));
                    }
                }
            }
        }
        Self(files)
    }

    /// Follows re-exports, and returns the file that defines the item at a path.
    fn definer(&self, path: &[String]) -> Option<&Parts> {
        let file = |parts: &[String]| (1..=parts.len()).rev().find_map(|end| self.0.get(&parts[..end]));
        let mut path = path.to_vec();
        for _ in 0..8 {
            let found = file(&path)?;
            let Some(next) = path.get(found.module.len()).and_then(|name| found.exports.get(name)) else {
                return Some(&found.module);
            };
            let rest = path.split_off(found.module.len() + 1);
            path = next.iter().cloned().chain(rest).collect();
        }
        None
    }

    /// Returns the files that each file uses.
    fn edges(&self) -> BTreeMap<&Parts, BTreeSet<&Parts>> {
        let used = |file: &File| file.uses.iter().filter_map(|path| self.definer(path)).collect::<BTreeSet<_>>();
        let edges = self.0.values().map(|file| (&file.module, used(file)));
        edges
            .map(|(file, mut used)| {
                used.remove(file);
                (file, used)
            })
            .collect()
    }
}

impl File {
    fn parse(module: Parts, text: &str) -> Self {
        let mut file = syn::parse_file(text).expect("Rust");
        file.items.retain(|item| !is_for_tests(item));
        let mut this = Self {
            lines: text.lines().count(),
            uses: BTreeSet::new(),
            exports: BTreeMap::new(),
            roots: BTreeSet::new(),
            module,
        };
        for item in &file.items {
            match item {
                syn::Item::Use(item) => {
                    let mut paths = Vec::new();
                    leaves(&item.tree, &mut Vec::new(), &mut paths);
                    let passes_on = !matches!(item.vis, syn::Visibility::Inherited);
                    paths.into_iter().for_each(|(path, name)| this.add_use(&path, passes_on.then_some(name)));
                }
                item => this.add_tokens(item.to_token_stream()),
            }
        }
        this
    }

    fn add_use(&mut self, path: &[String], passed_on: Option<String>) {
        self.roots.insert(path[0].clone());
        let absolute = self.absolute(path);
        match passed_on {
            Some(name) => drop(self.exports.insert(name, absolute)),
            None => drop(self.uses.insert(absolute)),
        }
    }

    /// Adds the paths in an item's tokens, those in macros included.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path = Parts::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(part) if colons == 2 || path.is_empty() => {
                    path.push(part.to_string());
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    if colons < 2 || punct.spacing() == Spacing::Alone {
                        continue;
                    }
                }
                TokenTree::Group(group) => {
                    self.add_path(&std::mem::take(&mut path));
                    // Not `pub(in …)`, which names a folder without using it.
                    if group.stream().into_iter().next().is_none_or(|first| first.to_string() != "in") {
                        self.add_tokens(group.stream());
                    }
                }
                TokenTree::Ident(part) => {
                    self.add_path(&std::mem::replace(&mut path, vec![part.to_string()]));
                    colons = 0;
                    continue;
                }
                _ => {}
            }
            self.add_path(&std::mem::take(&mut path));
            colons = 0;
        }
        self.add_path(&path);
    }

    fn add_path(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.roots.insert(path[0].clone());
            self.uses.insert(self.absolute(path));
        }
    }

    /// Returns a path from the crate's root. A path that begins with neither `crate` nor `super` may begin with a child
    /// module, so it is taken as relative to this file.
    fn absolute(&self, path: &[String]) -> Parts {
        let mut base = self.module.clone();
        let mut rest = path;
        if path[0] == "crate" {
            base.clear();
            rest = &path[1..];
        }
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "super" => drop(base.pop()),
                "self" => {}
                _ => break,
            }
            rest = others;
        }
        base.extend_from_slice(rest);
        base
    }
}

fn is_for_tests(item: &syn::Item) -> bool {
    let syn::Item::Mod(item) = item else { return false };
    item.attrs.iter().any(|attr| attr.path().is_ident("cfg") && attr.to_token_stream().to_string().contains("test"))
        && item.content.is_some()
}

/// Collects the paths of a `use` tree, and the names that they get.
fn leaves(tree: &syn::UseTree, path: &mut Parts, paths: &mut Vec<(Parts, String)>) {
    match tree {
        syn::UseTree::Path(part) => {
            path.push(part.ident.to_string());
            leaves(&part.tree, path, paths);
            path.pop();
        }
        syn::UseTree::Name(name) if name.ident == "self" => paths.push((path.clone(), path[path.len() - 1].clone())),
        syn::UseTree::Name(name) => {
            paths.push(([&path[..], &[name.ident.to_string()]].concat(), name.ident.to_string()));
        }
        syn::UseTree::Rename(name) => {
            paths.push(([&path[..], &[name.ident.to_string()]].concat(), name.rename.to_string()));
        }
        syn::UseTree::Glob(_) => paths.push((path.clone(), "*".to_owned())),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, path, paths)),
    }
}

/// A row of the table: folders, and the things that they must not use.
struct Floor {
    folders: Vec<String>,
    unknown: Vec<String>,
}

/// Reads the table of ARCHITECTURE.md. The top floor comes first.
fn floors() -> Vec<Floor> {
    let text = include_str!("../ARCHITECTURE.md");
    let section = text.split("\n## Floors\n").nth(1).expect("a section on floors");
    let section = section.split("\n## ").next().expect("its end");
    let words = |cell: &str, apart: char| {
        let words = cell.split(apart).map(|word| word.trim_matches([' ', '`', '/']).to_owned());
        words.filter(|word| !word.is_empty()).collect::<Vec<_>>()
    };
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.trim_matches('|').split('|').collect::<Vec<_>>());
    cells.map(|cells| Floor { folders: words(cells[0], ' '), unknown: words(cells[2], ',') }).collect()
}

/// Returns the row that lists a module's folder.
fn row_of<'a>(floors: &'a [Floor], module: &[String]) -> Option<(usize, &'a Floor)> {
    floors.iter().enumerate().find(|(_, floor)| floor.folders.contains(&module[0]))
}

#[test]
fn every_folder_stands_on_a_floor_and_uses_only_those_below() {
    let (sources, floors) = (Sources::read(), floors());
    let mut wrong = Vec::new();
    for (file, used) in sources.edges() {
        if file.is_empty() {
            continue;
        }
        let Some((row, _)) = row_of(&floors, file) else {
            wrong.push(format!("{} stands on no floor of ARCHITECTURE.md", file.join("::")));
            continue;
        };
        for used in used.into_iter().filter(|used| used.is_empty() || used[0] != file[0]) {
            if used.is_empty() || row_of(&floors, used).is_none_or(|(below, _)| below <= row) {
                wrong.push(format!("{} uses {}, which is not below it", file.join("::"), used.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_uses_one_that_uses_it() {
    let sources = Sources::read();
    let edges = sources.edges();
    let reaches_itself = |file: &&Parts| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![*file]);
        while let Some(file) = next.pop() {
            next.extend(edges[file].iter().filter(|used| seen.insert(**used)));
        }
        seen.contains(*file)
    };
    let circle: Vec<_> = edges.keys().copied().filter(reaches_itself).map(|file| file.join("::")).collect();
    assert!(circle.is_empty(), "in circles: {}", circle.join(", "));
}

#[test]
fn floors_know_nothing_that_their_row_excludes() {
    let (sources, floors) = (Sources::read(), floors());
    for file in sources.0.values().filter(|file| !file.module.is_empty()) {
        let Some((_, floor)) = row_of(&floors, &file.module) else { continue };
        for unknown in &floor.unknown {
            let (crates, folder): (&[&str], _) = match unknown.as_str() {
                "tokio" => (&["tokio", "tokio_util"], None),
                "http" => (&["http", "http_body", "http_body_util"], None),
                "stores" => (&[], Some("store")),
                "the layer" => (&[], Some("layer")),
                other => panic!("a row of ARCHITECTURE.md excludes `{other}`, which this test does not know"),
            };
            let name = file.module.join("::");
            assert!(!crates.iter().any(|known| file.roots.contains(*known)), "{name} knows {unknown}");
            let uses = |folder: &str| file.uses.iter().any(|path| path.first().is_some_and(|first| first == folder));
            assert!(!folder.is_some_and(uses), "{name} knows {unknown}");
        }
    }
}

#[test]
fn files_are_short() {
    let long = Sources::read().0.into_values().filter(|file| file.lines >= LINES);
    let long: Vec<_> = long.map(|file| format!("{} ({} lines)", file.module.join("::"), file.lines)).collect();
    assert!(long.is_empty(), "{LINES} lines or more: {}", long.join(", "));
}
