//! A whole Dockerfile: arguments for all stages, then the stages.

use super::ParseError;
use super::instruction::{self, From, Instruction};
use super::lines;

/// One instruction with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its line, from 1; 0: it isn't of the Dockerfile.
    pub line: usize,
    /// As written, on one line.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// A stage: `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What it begins with.
    pub from: From,
    /// The line of that.
    pub line: usize,
    /// That as written.
    pub text: String,
    /// What follows.
    pub steps: Vec<Step>,
}

/// A Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// What escapes a character and continues a line.
    pub escape: char,
    /// `ARG`s before the first stage, for the `FROM`s: line, name, default.
    pub arguments: Vec<(usize, String, Option<String>)>,
    /// The stages; at least one.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// Reads a Dockerfile.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (lines, escape) = lines::read(text)?;
        let last = lines.last().map_or(1, |line| line.number);
        let mut file = Self { escape, arguments: Vec::new(), stages: Vec::new() };
        for line in lines {
            let number = line.number;
            let refuse = |reason| ParseError { line: number, reason };
            let instruction = instruction::parse(&line.text, line.heredocs, escape).map_err(refuse)?;
            match (instruction, file.stages.last_mut()) {
                (Instruction::From(from), _) => {
                    if from.name.as_ref().is_some_and(|name| file.stage(name).is_some()) {
                        let name = from.name.unwrap_or_default();
                        return Err(refuse(format!("the name {name:?} is that of another stage already")));
                    }
                    file.stages.push(Stage { from, line: number, text: line.text, steps: Vec::new() });
                }
                (Instruction::Arg(arguments), None) => {
                    file.arguments.extend(arguments.into_iter().map(|(name, default)| (number, name, default)));
                }
                (_, None) => return Err(refuse("no build stage in current context: FROM has to come first".into())),
                (instruction, Some(stage)) => stage.steps.push(Step { line: number, text: line.text, instruction }),
            }
        }
        if file.stages.is_empty() {
            return Err(ParseError { line: last, reason: "file with no instructions: FROM is wanted".into() });
        }
        Ok(file)
    }

    /// The number of the stage of this name.
    pub fn stage(&self, name: &str) -> Option<usize> {
        self.stages.iter().position(|stage| stage.from.name.as_deref().is_some_and(|of| of.eq_ignore_ascii_case(name)))
    }
}

/// Reads one instruction that stands alone: a trigger of a base image, or a change of `docker commit`.
pub fn parse_one(text: &str) -> Result<Step, String> {
    let (lines, escape) = lines::read(text).map_err(|error| error.reason)?;
    let mut lines = lines.into_iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err("want one instruction".into()) };
    let instruction = instruction::parse(&line.text, line.heredocs, escape)?;
    Ok(Step { line: 0, text: line.text, instruction })
}
