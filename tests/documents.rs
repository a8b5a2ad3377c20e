//! Links within the documentation, and references from comments to its headings (`docs/method.md, "Losses"`).

#![allow(clippy::disallowed_methods)]

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// All files below `folder` with one of these extensions, without what Cargo and the set-up put there.
fn files(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap_or_default();
        if entry.file_type().unwrap().is_dir() {
            if !name.starts_with('.') && !matches!(name.as_str(), "target" | "workspace") {
                files(&path, extensions, found);
            }
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|known| extension == *known)) {
            found.push(path);
        }
    }
}

fn files_of_the_project(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(Path::new(env!("CARGO_MANIFEST_DIR")), extensions, &mut found);
    found
}

/// The headings of a Markdown file.
fn headings(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| line.trim_start_matches('#').trim().to_owned()).collect()
}

/// The anchor of a heading, as GitHub and mdBook form it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The targets of a Markdown file's links.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").map(|(at, _)| text[at + 2..].split(')').next().unwrap_or_default())
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut count = 0;
    for path in files_of_the_project(&["md"]) {
        let text = fs::read_to_string(&path).unwrap();
        for link in links(&text).filter(|link| !link.starts_with("http")) {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: there is no {link}", path.display());
            let is_there = section.is_empty() || headings(&target).iter().any(|heading| anchor(heading) == section);
            assert!(is_there, "{}: there is no heading for {link}", path.display());
            count += 1;
        }
    }
    assert!(count > 50, "only {count} links were found");
}

#[test]
fn comments_refer_to_headings() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut count = 0;
    for path in files_of_the_project(&["rs", "py"]) {
        // A reference may continue on the next line of a comment.
        let lines = fs::read_to_string(&path).unwrap();
        let lines = lines.lines().map(|line| line.trim_start().trim_start_matches(['/', '!', '#']).trim());
        let text = lines.collect::<Vec<_>>().join(" ");
        for (at, _) in text.match_indices("docs/") {
            let Some((name, mut rest)) = text[at + 5..].split_once(".md") else { continue };
            if !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                continue;
            }
            let headings: HashSet<String> = headings(&docs.join(format!("{name}.md"))).into_iter().collect();
            // docs/NAME.md, "A", "B" and "C"
            while let Some(quoted) = rest.strip_prefix(", \"").or_else(|| rest.strip_prefix(" and \"")) {
                let (heading, after) = quoted.split_once('"').unwrap_or((quoted, ""));
                assert!(headings.contains(heading), "{}: docs/{name}.md has no \"{heading}\"", path.display());
                rest = after;
                count += 1;
            }
        }
    }
    assert!(count > 5, "only {count} references were found");
}
