//! A source file as tokens: enough of Rust's lexical grammar to tell code from comments and literals, and code that
//! ships from code that only tests compile. It never guesses at types or names.

use std::path::{Path, PathBuf};

/// What a token is; literals keep their text but rules only look at the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Identifier or keyword.
    Word,
    /// `'a`.
    Lifetime,
    /// String, character or number.
    Literal,
    /// One character, or `::`.
    Punct,
    /// `///`, `//!`, `/** */` or `/*! */`.
    Doc,
}

/// A token and its place.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// The line it starts on, from 1.
    pub line: usize,
    /// Whether only tests compile it: inside `#[cfg(test)]` or a `#[test]` function.
    pub test: bool,
}

impl Token<'_> {
    /// Whether it is this punctuation or word.
    pub fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Punct | Kind::Word) && self.text == text
    }
}

/// A file of the tree. Paths are relative to the repository, with `/`.
#[derive(Debug)]
pub struct Source<'a> {
    pub path: &'a str,
    pub text: &'a str,
    pub tokens: Vec<Token<'a>>,
    /// Plain comments: line and text.
    pub comments: Vec<(usize, &'a str)>,
    /// Files that only tests compile, as `#[cfg(test)] mod name;` declares them: `dir/name.rs` and what is under `dir/name/`.
    pub test_modules: Vec<PathBuf>,
}

impl<'a> Source<'a> {
    /// Splits a file into tokens and marks what only tests compile.
    pub fn parse(path: &'a str, text: &'a str) -> Self {
        let mut lexer = Lexer { text, at: 0, line: 1, tokens: Vec::new(), comments: Vec::new() };
        while lexer.step() {}
        let Lexer { tokens, comments, .. } = lexer;
        let mut source = Self { path, text, tokens, comments, test_modules: Vec::new() };
        if path.starts_with("tests/") || path.starts_with("benches/") {
            source.mark_all();
        } else {
            source.mark_tests();
        }
        source
    }

    /// Marks the whole file as test code.
    pub fn mark_all(&mut self) {
        self.tokens.iter_mut().for_each(|token| token.test = true);
    }

    /// Whether the tokens from `at` on read like this, e.g. `["thread", "::", "sleep"]`.
    pub fn reads(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.tokens.get(at + i).is_some_and(|token| token.is(word)))
    }

    /// The token before `at`, if it is this.
    pub fn follows(&self, at: usize, word: &str) -> bool {
        at.checked_sub(1).is_some_and(|before| self.tokens[before].is(word))
    }

    /// The index behind the bracket that closes the one at `open`; the end of the file if none does.
    pub fn behind_bracket(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for (i, token) in self.tokens.iter().enumerate().skip(open) {
            if token.kind != Kind::Punct {
                continue;
            }
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return i + 1;
            }
        }
        self.tokens.len()
    }

    fn mark_tests(&mut self) {
        let mut at = 0;
        while at < self.tokens.len() {
            let inner = self.reads(at, &["#", "!", "["]);
            let open = at + if inner { 2 } else { 1 };
            if !self.tokens[at].is("#") || !self.tokens.get(open).is_some_and(|token| token.is("[")) {
                at += 1;
                continue;
            }
            let body = open + 1;
            let end = self.behind_bracket(open);
            if !self.is_test_attribute(body, end - 1) {
                at = end;
            } else if inner {
                self.mark_all();
                return;
            } else {
                let item_end = self.behind_item(end);
                self.note_module(at, item_end);
                self.tokens[at..item_end].iter_mut().for_each(|token| token.test = true);
                at = item_end;
            }
        }
    }

    /// `cfg(…)` that only holds under test, or `test` as the last segment of a path (`#[test]`, `#[tokio::test]`).
    fn is_test_attribute(&self, body: usize, end: usize) -> bool {
        if self.reads(body, &["cfg", "("]) {
            return self.needs_test(body + 2).0;
        }
        let path_end =
            (body..end).find(|&i| !self.tokens[i].is("::") && self.tokens[i].kind != Kind::Word).unwrap_or(end);
        path_end > body && self.tokens[path_end - 1].is("test")
    }

    /// Whether the predicate at `at` can only hold under `test`, and the index behind it.
    fn needs_test(&self, at: usize) -> (bool, usize) {
        let Some(word) = self.tokens.get(at) else { return (false, at) };
        if !self.reads(at + 1, &["("]) {
            let end = (at + 1..self.tokens.len()).find(|&i| self.tokens[i].is(",") || self.tokens[i].is(")"));
            return (word.is("test"), end.unwrap_or(self.tokens.len()));
        }
        let end = self.behind_bracket(at + 1);
        let mut parts = Vec::new();
        let mut i = at + 2;
        while i + 1 < end {
            let (needs, next) = self.needs_test(i);
            parts.push(needs);
            i = next + usize::from(self.reads(next, &[","]));
        }
        let needs = match word.text {
            "all" => parts.contains(&true),
            "any" => !parts.is_empty() && !parts.contains(&false),
            _ => false,
        };
        (needs, end)
    }

    /// The index behind the item that starts at `at`, further attributes included.
    fn behind_item(&self, mut at: usize) -> usize {
        while self.reads(at, &["#", "["]) || self.tokens.get(at).is_some_and(|token| token.kind == Kind::Doc) {
            at = if self.tokens[at].kind == Kind::Doc { at + 1 } else { self.behind_bracket(at + 1) };
        }
        let statement = (at..self.tokens.len().min(at + 6))
            .any(|i| ["use", "const", "static", "type", "let"].iter().any(|word| self.tokens[i].is(word)))
            && !(at..self.tokens.len().min(at + 6)).any(|i| self.tokens[i].is("fn") || self.tokens[i].is("mod"));
        while let Some(token) = self.tokens.get(at) {
            if token.is(";") || token.is(",") {
                return at + 1;
            } else if token.is("{") && !statement {
                return self.behind_bracket(at);
            } else if token.is("(") || token.is("[") || token.is("{") {
                at = self.behind_bracket(at);
            } else if token.is(")") || token.is("]") || token.is("}") {
                return at;
            } else {
                at += 1;
            }
        }
        at
    }

    /// Remembers the file behind a test-only `mod name;`.
    fn note_module(&mut self, from: usize, end: usize) {
        let Some(at) = (from..end).find(|&i| self.tokens[i].is("mod") && self.reads(i + 2, &[";"])) else { return };
        let file = Path::new(self.path);
        let folder = file.parent().unwrap_or(Path::new(""));
        let explicit = (from..at).find(|&i| self.reads(i, &["path", "="])).map(|i| self.tokens[i + 2].text);
        let stem = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        self.test_modules.push(match explicit {
            Some(literal) => folder.join(literal.trim_matches('"')).with_extension(""),
            None if matches!(stem.as_str(), "mod" | "lib" | "main") => folder.join(self.tokens[at + 1].text),
            None => folder.join(stem).join(self.tokens[at + 1].text),
        });
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Token<'a>>,
    comments: Vec<(usize, &'a str)>,
}

impl<'a> Lexer<'a> {
    /// Takes one token, comment or stretch of white space; `false` at the end.
    fn step(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else { return false };
        if rest.starts_with("//") {
            let len = rest.find('\n').unwrap_or(rest.len());
            let doc = (rest.starts_with("///") && !rest.starts_with("////")) || rest.starts_with("//!");
            self.comment(len, doc);
        } else if rest.starts_with("/*") {
            let doc = (rest.starts_with("/**") && !rest.starts_with("/**/")) || rest.starts_with("/*!");
            self.comment(block_comment_len(rest), doc);
        } else if first.is_alphabetic() || first == '_' {
            self.word_or_prefixed(rest);
        } else if first == '"' {
            self.take(Kind::Literal, quoted_len(rest, '"'));
        } else if first == '\'' {
            self.quote(rest);
        } else if first.is_ascii_digit() {
            self.take(Kind::Literal, number_len(rest));
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            self.take(Kind::Punct, if rest.starts_with("::") { 2 } else { first.len_utf8() });
        }
        true
    }

    fn word_or_prefixed(&mut self, rest: &str) {
        let len = word_len(rest);
        let (word, next) = rest.split_at(len);
        let hashes = next.len() - next.trim_start_matches('#').len();
        let raw = matches!(word, "r" | "br" | "cr");
        if raw && next[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = len + hashes + 1;
            let end = rest[body..].find(&close).map_or(rest.len(), |found| body + found + close.len());
            self.take(Kind::Literal, end);
        } else if matches!(word, "b" | "c") && next.starts_with('"') {
            self.take(Kind::Literal, len + quoted_len(next, '"'));
        } else if word == "b" && next.starts_with('\'') {
            self.take(Kind::Literal, len + quoted_len(next, '\''));
        } else if word == "r" && hashes == 1 {
            self.take(Kind::Word, len + 1 + word_len(&next[1..]));
        } else {
            self.take(Kind::Word, len);
        }
    }

    /// A character literal, or else a lifetime.
    fn quote(&mut self, rest: &str) {
        let mut chars = rest[1..].chars();
        let (first, second) = (chars.next(), chars.next());
        if first == Some('\\') || second == Some('\'') {
            self.take(Kind::Literal, quoted_len(rest, '\''));
        } else {
            self.take(Kind::Lifetime, 1 + word_len(&rest[1..]));
        }
    }

    fn comment(&mut self, len: usize, doc: bool) {
        if doc {
            self.take(Kind::Doc, len);
        } else {
            self.comments.push((self.line, &self.text[self.at..self.at + len]));
            self.skip(len);
        }
    }

    fn take(&mut self, kind: Kind, len: usize) {
        let text = &self.text[self.at..self.at + len];
        self.tokens.push(Token { kind, text, line: self.line, test: false });
        self.skip(len);
    }

    fn skip(&mut self, len: usize) {
        self.line += self.text[self.at..self.at + len].matches('\n').count();
        self.at += len;
    }
}

fn word_len(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn number_len(text: &str) -> usize {
    let whole = word_len(text);
    let fraction = text[whole..].strip_prefix('.').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    whole + fraction.map_or(0, |rest| 1 + word_len(rest))
}

/// The length of a literal in quotes, both included; backslashes escape.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return i + 1;
        }
    }
    text.len()
}

/// Block comments nest.
fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Comments, strings of every kind, characters and lifetimes are told apart from code, and lines are counted through them.
#[test]
fn literals_and_comments_are_not_code() {
    let text = "// unsafe\n/* unsafe /* unsafe */ unsafe\n */ a \"un\\\"safe\" r##\"x\"# unsafe\"## b'\\'' 'u' '\\n' 'unsafe: b\"q\" \
                0..5 1.5 r#fn z";
    let source = Source::parse("src/x.rs", text);
    let words: Vec<_> = source.tokens.iter().filter(|t| t.kind == Kind::Word).map(|t| (t.text, t.line)).collect();
    assert_eq!(words, [("a", 3), ("r#fn", 3), ("z", 3)]);
    assert_eq!(source.tokens.iter().filter(|t| t.kind == Kind::Lifetime).count(), 1);
    assert_eq!(source.comments.len(), 2);
}

/// What only tests compile is marked, to the item's end and no further.
#[test]
fn test_code_is_told_from_code_that_ships() {
    let shipped = |text: &str| -> Vec<String> {
        let source = Source::parse("src/x.rs", text);
        source.tokens.iter().filter(|t| t.kind == Kind::Word && !t.test).map(|t| t.text.to_owned()).collect()
    };
    assert_eq!(shipped("a!(); #[cfg(test)] #[x] mod t { b } c"), ["a", "c"]);
    assert_eq!(shipped("#[cfg(all(test, not(loom)))] use x::{y, z}; c"), ["c"]);
    assert_eq!(shipped("#[test] fn t() { b } fn c() {}"), ["fn", "c"]);
    assert_eq!(shipped("#[cfg(any(test, loom))] mod b {}"), ["cfg", "any", "test", "loom", "mod", "b"]);
    assert_eq!(shipped("#[cfg(not(test))] b"), ["cfg", "not", "test", "b"]);
    assert_eq!(shipped("#![cfg(test)] b"), [""; 0]);
}

/// Test modules in files of their own are found, wherever the declaration stands.
#[test]
fn test_modules_in_files_are_noted() {
    let noted = |path: &'static str, text: &'static str| Source::parse(path, text).test_modules;
    assert_eq!(noted("src/a/mod.rs", "#[cfg(test)] mod tests;"), [Path::new("src/a/tests")]);
    assert_eq!(noted("src/a/b.rs", "#[cfg(test)]\nmod tests;"), [Path::new("src/a/b/tests")]);
    assert_eq!(noted("src/a/b.rs", "#[cfg(test)] #[path = \"b_tests.rs\"] mod t;"), [Path::new("src/a/b_tests")]);
    assert!(noted("src/a/b.rs", "mod tests;").is_empty());
}
