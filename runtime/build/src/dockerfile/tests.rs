//! Awkward Dockerfiles.

use std::collections::BTreeMap;

use super::expand;
use super::instruction::{Command, Instruction, Source};
use super::{Dockerfile, ParseError};

fn instructions(text: &str) -> Vec<(usize, Instruction)> {
    let file = Dockerfile::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    file.stages.into_iter().flat_map(|stage| stage.steps).map(|step| (step.line, step.instruction)).collect()
}

fn after_from(text: &str) -> Vec<Instruction> {
    instructions(&format!("FROM x\n{text}")).into_iter().map(|(_, instruction)| instruction).collect()
}

fn refused(text: &str) -> ParseError {
    Dockerfile::parse(text).expect_err(text)
}

#[test]
fn comments_continuations_and_directives_are_read_as_docker_does() {
    let text = "\u{feff}# syntax=docker/dockerfile:1\r\n# escape=\\\n\n # comment\n\n  fRoM x\n\
                RUN a \\\n  # in between\n\n  b \\  \n c\\\\\n\
                RUN d \\\n\\\n e\n\
                ENV path C:\\\\x\n";
    let read = instructions(text);
    let shell = |line: &str| Command::Shell(line.into());
    let Instruction::Run(first) = &read[0].1 else { panic!() };
    assert_eq!((read[0].0, &first.command), (7, &shell("a   b  c\\\\")));
    let Instruction::Run(second) = &read[1].1 else { panic!() };
    assert_eq!((read[1].0, &second.command), (12, &shell("d  e")));
    assert_eq!(read[2], (15, Instruction::Env(vec![("path".into(), "C:\\\\x".into())])));
}

#[test]
fn another_escape_character_leaves_backslashes_alone() {
    let file = Dockerfile::parse("# escape=`\nFROM x\nRUN dir C:\\\nRUN a `\n b\n").unwrap();
    let texts: Vec<_> = file.stages[0].steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!((file.escape, texts), ('`', vec!["RUN dir C:\\", "RUN a  b"]));
    // After anything else a directive is a comment.
    assert_eq!(Dockerfile::parse("#\n# escape=`\nFROM x").unwrap().escape, '\\');
    assert_eq!(refused("# escape=x\nFROM x").line, 1);
    assert!(refused("# escape=`\n# escape=`\nFROM x").reason.contains("only one"));
}

#[test]
fn commands_are_words_or_a_line_for_the_shell() {
    let read = after_from("CMD [\"a\", \"b c\"]\nCMD [a, b]\nENTRYPOINT [ \"x\"]\nCMD\nSHELL [\"/bin/x\", \"-c\"]");
    let exec = |words: &[&str]| Command::Exec(words.iter().map(|word| (*word).to_owned()).collect());
    assert_eq!(read[0], Instruction::Cmd(exec(&["a", "b c"])));
    assert_eq!(read[1], Instruction::Cmd(Command::Shell("[a, b]".into())));
    assert_eq!(read[2], Instruction::Entrypoint(exec(&["x"])));
    assert_eq!(read[3], Instruction::Cmd(Command::Shell(String::new())));
    assert_eq!(read[4], Instruction::Shell(vec!["/bin/x".into(), "-c".into()]));
}

#[test]
fn names_and_values_keep_their_quotes_until_they_are_used() {
    let read = after_from("ENV A=1 B=\"x y\" C=z\\ z D='$q'\nENV a b  c\nLABEL \"k w\"=v\nARG X Y=2 Z=\"3 4\"");
    let pairs =
        |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    assert_eq!(read[0], Instruction::Env(pairs(&[("A", "1"), ("B", "\"x y\""), ("C", "z\\ z"), ("D", "'$q'")])));
    assert_eq!(read[1], Instruction::Env(pairs(&[("a", "b  c")])));
    assert_eq!(read[2], Instruction::Label(pairs(&[("\"k w\"", "v")])));
    let Instruction::Arg(arguments) = &read[3] else { panic!() };
    assert_eq!(arguments[0], ("X".to_owned(), None));
    assert_eq!(arguments[2], ("Z".to_owned(), Some("\"3 4\"".to_owned())));
}

#[test]
fn heredocs_are_taken_in_with_their_instruction() {
    let text = "RUN <<EOF\necho a\n# kept\n\n  b \\\nEOF\nRUN cat <<-X <<'Y' >z\n\ta\n\tX\n$b\nY\nCOPY <<a <<\"b\" c /d/\n1\na\n2\nb\nRUN echo '<<EOF'\nRUN x<<y\n";
    let read = after_from(text);
    let Instruction::Run(script) = &read[0] else { panic!() };
    assert_eq!((script.heredocs[0].content.as_str(), script.heredocs[0].expands), ("echo a\n# kept\n\n  b \\\n", true));
    let Instruction::Run(two) = &read[1] else { panic!() };
    let texts: Vec<_> = two.heredocs.iter().map(|heredoc| (heredoc.content.as_str(), heredoc.expands)).collect();
    assert_eq!(texts, [("a\n", true), ("$b\n", false)]);
    let Instruction::Transfer(copy) = &read[2] else { panic!() };
    let sources: Vec<_> = copy
        .sources
        .iter()
        .map(|source| match source {
            Source::Inline(heredoc) => format!("{}={}", heredoc.name, heredoc.content.trim()),
            Source::Path(path) => path.clone(),
        })
        .collect();
    assert_eq!((sources, copy.target.as_str()), (vec!["a=1".into(), "b=2".into(), "c".into()], "/d/"));
    assert!(read[3..].iter().all(|run| matches!(run, Instruction::Run(run) if run.heredocs.is_empty())));
    assert_eq!(refused("FROM x\nRUN <<EOF\nno end").line, 2);
}

#[test]
fn triggers_are_kept_as_text_and_checked() {
    assert_eq!(after_from("ONBUILD copy . /x")[0], Instruction::OnBuild("copy . /x".into()));
    assert_eq!(after_from("ONBUILD RUN <<E\na\nE")[0], Instruction::OnBuild("RUN <<E\na\nE".into()));
    let again = super::file::parse_one("RUN <<E\na\nE").unwrap();
    assert!(matches!(again.instruction, Instruction::Run(run) if run.heredocs.len() == 1));
    for bad in ["ONBUILD ONBUILD RUN x", "ONBUILD FROM x", "ONBUILD MAINTAINER x", "ONBUILD NONSENSE"] {
        assert_eq!(refused(&format!("FROM x\n{bad}")).line, 2, "{bad}");
    }
}

#[test]
fn flags_are_read_or_refused_by_name() {
    let read = after_from(
        "COPY --from=a --chown=1:2 --chmod=755 --link [\"x y\", \"z\"]\nADD --checksum=sha256:0 --chown=u h /t\n\
         RUN --network=none x --y\nHEALTHCHECK --interval=5s CMD x",
    );
    let Instruction::Transfer(copy) = &read[0] else { panic!() };
    assert_eq!(
        (copy.from.as_deref(), copy.owner.as_deref(), copy.mode.as_deref()),
        (Some("a"), Some("1:2"), Some("755"))
    );
    assert_eq!(copy.sources, [Source::Path("x y".into())]);
    let Instruction::Run(run) = &read[2] else { panic!() };
    assert_eq!((run.network.as_deref(), &run.command), (Some("none"), &Command::Shell("x --y".into())));
    for (bad, word) in [
        ("RUN --mount=type=cache,target=/x y", "--mount option requires BuildKit"),
        ("COPY --parents a b", "--parents"),
        ("COPY --nope a b", "unknown flag: --nope"),
        ("ADD --from=x a b", "unknown flag: --from"),
        ("RUN --network=moon x", "moon"),
        ("HEALTHCHECK --nope=1 CMD x", "--nope"),
        ("HEALTHCHECK --interval=5 CMD x", "5"),
        ("HEALTHCHECK NONE x", "no arguments"),
    ] {
        let error = refused(&format!("FROM x\n{bad}"));
        assert!(error.line == 2 && error.reason.contains(word), "{bad}: {error}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, line, word) in [
        ("", 1, "no instructions"),
        ("# only\n", 1, "no instructions"),
        ("RUN x", 1, "FROM has to come first"),
        ("FROM a\n\nNOPE x \\\n y", 3, "unknown instruction: NOPE"),
        ("FROM a\nRUN\n", 2, "RUN requires at least one argument"),
        ("FROM a b\n", 1, "one or three arguments"),
        ("FROM a AS 1b\n", 1, "invalid name"),
        ("FROM a AS x\nFROM b AS X\n", 2, "another stage"),
        ("FROM a\nCOPY x\n", 2, "at least two arguments"),
        ("FROM a\nENV x\n", 2, "two arguments"),
        ("FROM a\nENV x=1 y\n", 2, "can't find ="),
        ("FROM a\nENV =1\n", 2, "blank"),
        ("FROM a\nSHELL /bin/x\n", 2, "JSON"),
        ("FROM a\nVOLUME [\"\"]\n", 2, "empty"),
        ("FROM a\nRUN []\n", 2, "at least one"),
        ("FROM a\nCOPY x <<E\n1\nE\n", 2, "destination"),
    ] {
        let error = refused(text);
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.reason.contains(word), "{text:?}: {error}");
    }
    let many = format!("FROM a\n{}", "RUN x\n".repeat(1000));
    assert!(refused(&many).reason.contains("more than 1000"));
    assert!(
        refused(&format!("FROM a\nRUN {}\\\n{}\n", "x".repeat(100_000), "y".repeat(100_000))).reason.contains("longer")
    );
}

#[test]
fn variables_stand_for_their_values_as_in_docker() {
    let known = BTreeMap::from([("A", "a b"), ("E", ""), ("N", "1")]);
    let lookup = |name: &str| known.get(name).map(|value| (*value).to_owned());
    for (text, value) in [
        ("$A", "a b"),
        ("${A}x", "a bx"),
        ("$Ax", ""),
        ("x$N-$N", "x1-1"),
        ("'$A'", "$A"),
        ("\"$A\"", "a b"),
        ("\\$A", "$A"),
        ("\"\\$A\\n\"", "$A\\n"),
        ("${U:-d}", "d"),
        ("${E:-d}", "d"),
        ("${E-d}", ""),
        ("${U-$N}", "1"),
        ("${U:-${V:-deep}}", "deep"),
        ("${A:+set}", "set"),
        ("${E:+set}", ""),
        ("${E+set}", "set"),
        ("${U:+set}", ""),
        ("${N:?gone}", "1"),
        ("${U:-'a}b'}", "a}b"),
        ("$", "$"),
        ("a$", "a$"),
        ("$1x", "x"),
        ("\"a\"'b'c", "abc"),
        ("é$N", "é1"),
    ] {
        assert_eq!(expand::word(text, '\\', &lookup).as_deref(), Ok(value), "{text}");
    }
    for (text, word) in [
        ("${U:?gone}", "gone"),
        ("${", "bad substitution"),
        ("${}", "bad substitution"),
        ("${A", "missing"),
        ("${A:-x", "missing"),
        ("${A!}", "unsupported modifier"),
        ("'a", "single-quote"),
        ("\"a", "double-quote"),
    ] {
        assert!(expand::word(text, '\\', &lookup).unwrap_err().contains(word), "{text}");
    }
    assert_eq!(expand::words("80 $A \"$A\" ''", '\\', &lookup).unwrap(), ["80", "a", "b", "a b", ""]);
    assert!(expand::word(&"${U:-".repeat(1000), '\\', &lookup).unwrap_err().contains("deep"));
    let long = "x".repeat(10_000);
    let doubling = |_: &str| Some(long.clone());
    assert!(expand::word(&"$A".repeat(100), '\\', &doubling).unwrap_err().contains("comes to more"));
}
