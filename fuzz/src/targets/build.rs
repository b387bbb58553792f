//! Dockerfiles, `.dockerignore`, and what stands in them.

use keel_build::dockerfile::file::parse_one;
use keel_build::dockerfile::{Dockerfile, Instruction, expand};
use keel_build::ignore::Ignore;
use keel_build::{plan, settings};

use super::answer;
use crate::runner::Target;

pub const TARGETS: [Target; 3] = [
    Target { name: "dockerfile", seeds: dockerfile_seeds, make: || Box::new(dockerfile), share: 1000 },
    Target { name: "dockerignore", seeds: ignore_seeds, make: || Box::new(ignore), share: 1000 },
    Target { name: "image_change", seeds: change_seeds, make: || Box::new(change), share: 1000 },
];

fn dockerfile_seeds() -> Vec<Vec<u8>> {
    [
        "# escape=`\n# syntax=x\nARG V=1\nFROM --platform=$P a:${V:-2} AS one\nRUN a `\n  # comment\n b\n\
         COPY --from=0 --chown=1:2 [\"x y\", \"z\"]\nFROM one\nADD http://x/y /z/\n",
        "FROM scratch\nRUN <<EOF cat <<-'B' >x\na\nEOF\n\tb\n\tB\nCOPY <<\"C\" /c\n$d\nC\nONBUILD RUN <<E\nx\nE\n",
        "FROM x\nENV A=\"1 2\" B=c\\ d\nLABEL a b c\nEXPOSE 80 5-7/udp\nVOLUME [\"/a\"]\nUSER $A\nWORKDIR ../x\n\
         STOPSIGNAL 9\nHEALTHCHECK --interval=5s --retries=3 CMD [\"x\"]\nSHELL [\"a\"]\nCMD x\nENTRYPOINT [\"y\"]\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn dockerfile(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let file = match Dockerfile::parse(&text) {
        Ok(file) => file,
        Err(error) => {
            assert!(error.line >= 1 && error.line <= text.lines().count().max(1), "an error is in the file: {error}");
            return error.reason;
        }
    };
    let lines: Vec<usize> = file.stages.iter().flat_map(|stage| stage.steps.iter().map(|step| step.line)).collect();
    assert!(lines.is_sorted(), "steps are in the order of their lines");
    for step in file.stages.iter().flat_map(|stage| &stage.steps) {
        if let Instruction::OnBuild(text) = &step.instruction {
            // Kept in images and read again, with the usual escape, by builds on top of them.
            let _ = parse_one(text);
        }
        let expanded = expand::word(&step.text, file.escape, &|name| (name.len() < 3).then(|| "${A} 'b".into()));
        assert!(expanded.is_err() || expanded.is_ok_and(|word| word.len() <= expand::MAX_BYTES));
    }
    let outcome = plan::plan(&file, None, &Default::default());
    if let Ok(plan) = &outcome {
        let numbers: Vec<usize> = plan.stages.iter().map(|stage| stage.number).collect();
        assert!(numbers.is_sorted() && numbers.last() == Some(&(file.stages.len() - 1)), "the wanted stage is last");
    }
    answer(outcome)
}

fn ignore_seeds() -> Vec<Vec<u8>> {
    ["a/b/c\n*.log\n!keep.log\n**/tmp\nsecret/**\n", "x/y\n# no\n[a-c]?/\\*\n!**/*.[^o]\n*\n"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// The first line is the path.
fn ignore(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
    let (path, patterns) = text.split_once('\n').unwrap_or((&text, ""));
    match Ignore::parse(patterns) {
        Err(error) => error.to_string(),
        Ok(ignore) => {
            let out = ignore.leaves_out(path);
            let without = patterns.lines().all(|line| line.starts_with(['#', '!']) || line.trim().is_empty());
            assert!(!(out && without), "nothing is left out that no pattern names");
            format!("{out}")
        }
    }
}

fn change_seeds() -> Vec<Vec<u8>> {
    ["ENV A=1 B=$A", "CMD [\"a\"]", "EXPOSE 1-9 10/udp", "HEALTHCHECK NONE", "WORKDIR a/../b", "ONBUILD RUN x"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

fn change(bytes: &[u8]) -> String {
    let mut config = Default::default();
    let outcome = settings::apply_all(&mut config, &[String::from_utf8_lossy(bytes).into_owned()]);
    let folder = &config.working_dir;
    assert!(folder.is_empty() || (folder.starts_with('/') && !folder.contains("/../")), "a folder is absolute");
    assert!(config.env.iter().all(|line| line.contains('=') && !line.starts_with('=')), "a variable has a name");
    answer(outcome)
}
