//! `--proto FILE`: what gRPC's services and messages are called, from sources or compiled.

use std::io;
use std::path::{Path, PathBuf};

use protox::Compiler;

use super::Failure;
use crate::dissect::Descriptors;

/// How many folders above a source its imports may start from.
const MAX_ABOVE: usize = 16;

/// Reads sources (`.proto`), folders of them, and `FileDescriptorSet`s, which is what any other file is.
pub fn load(paths: &[PathBuf]) -> Result<Descriptors, Failure> {
    let mut descriptors = Descriptors::default();
    let folders: Vec<&Path> = paths.iter().map(PathBuf::as_path).filter(|path| path.is_dir()).collect();
    for path in paths {
        let is_source = path.extension().is_some_and(|extension| extension == "proto");
        let set = match () {
            () if path.is_dir() => folder(path, &folders)?,
            () if is_source => source(path, &folders)?,
            () => std::fs::read(path).map_err(|error| unreadable(path, &error))?,
        };
        descriptors.add(&set).map_err(|why| {
            Failure::new(format!("cannot use {}: {why}", path.display())).hint(if is_source || path.is_dir() {
                "the same definitions may come from several --proto: name the folder that holds all of them, once"
            } else {
                "a set of descriptors holds all imports: protoc --include_imports -o FILE.binpb, buf build -o FILE.binpb, or \
                 grpcurl -protoset-out FILE.binpb; sources are files *.proto or folders of them"
            })
        })?;
    }
    Ok(descriptors)
}

/// Compiles all sources in a folder, from which their imports start, or else from one of the others.
fn folder(path: &Path, folders: &[&Path]) -> Result<Vec<u8>, Failure> {
    let mut sources = Vec::new();
    find(path, &mut sources).map_err(|error| unreadable(path, &error))?;
    if sources.is_empty() {
        return Err(Failure::new(format!("no files *.proto in {}", path.display()))
            .hint("name compiled sets of descriptors one by one"));
    }
    compile(&sources, path, folders).map_err(|error| uncompiled(path, &error))
}

/// Compiles one source. Its imports start from one of the folders, from its own, or from one above: whichever has them all.
fn source(path: &Path, folders: &[&Path]) -> Result<Vec<u8>, Failure> {
    let whole = path.canonicalize().map_err(|error| unreadable(path, &error))?;
    let mut first = None;
    for root in whole.ancestors().skip(1).take(MAX_ABOVE) {
        match compile(std::slice::from_ref(&whole), root, folders) {
            Ok(set) => return Ok(set),
            Err(error) if error.is_file_not_found() => first = first.or(Some(error)),
            Err(error) => return Err(uncompiled(path, &error)),
        }
    }
    match first {
        Some(error) => Err(uncompiled(path, &error)),
        None => Err(unreadable(path, &io::ErrorKind::NotFound.into())),
    }
}

fn compile(sources: &[PathBuf], root: &Path, folders: &[&Path]) -> Result<Vec<u8>, protox::Error> {
    let others = folders.iter().copied().filter(|folder| *folder != root);
    let mut compiler = Compiler::new(std::iter::once(root).chain(others))?;
    compiler.include_imports(true).open_files(sources)?;
    Ok(compiler.encode_file_descriptor_set())
}

/// The sources in a folder and those below it, in order.
fn find(folder: &Path, sources: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // Links are not followed into folders, where they may go round in circles.
        if entry.file_type()?.is_dir() {
            find(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            sources.push(path);
        }
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {error}", path.display()))
        .hint("--proto takes a .proto file, a folder of them, or a compiled set of descriptors")
}

fn uncompiled(path: &Path, error: &protox::Error) -> Failure {
    // What it says in full, with file and line, is its `Debug`.
    let failure = Failure::new(format!("cannot compile {}: {error:?}", path.display()));
    if error.is_file_not_found() {
        failure.hint("name the folder that imports start from too: --proto DIR")
    } else {
        failure.hint("sources are compiled as protoc would; --proto takes what protoc has compiled as well")
    }
}
