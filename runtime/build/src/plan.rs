//! What a build is to do, decided before anything is done: which stages, in which order, from what.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::expand;
use crate::dockerfile::{Dockerfile, Instruction, ParseError, Stage};
use crate::error::Error;

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image.
    Image(String),
}

/// One stage that is needed.
#[derive(Clone, Debug)]
pub struct Planned<'a> {
    /// Its number in the Dockerfile.
    pub number: usize,
    /// The stage.
    pub stage: &'a Stage,
    /// What it begins with.
    pub base: Base,
    /// For which machine its base is.
    pub platform: Option<String>,
}

/// What a build is to do.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The stages in order; the last is the one that is wanted.
    pub stages: Vec<Planned<'a>>,
    /// How many steps all of them have.
    pub steps: usize,
    /// Arguments from before the first stage, with what the client gave for them.
    pub arguments: BTreeMap<String, String>,
}

/// Which stages are needed for `target`, `None`: the last one. `given` are the client's build arguments.
pub fn plan<'a>(
    file: &'a Dockerfile,
    target: Option<&str>,
    given: &BTreeMap<String, String>,
) -> Result<Plan<'a>, Error> {
    let arguments = arguments(file, given)?;
    let target = match target {
        None => file.stages.len() - 1,
        Some(name) => find(file, name, file.stages.len())
            .ok_or_else(|| Error::Bad(format!("failed to reach build target {name} in Dockerfile")))?,
    };
    let mut planned = Vec::new();
    for (number, stage) in file.stages.iter().enumerate().take(target + 1) {
        planned.push(begin(file, number, stage, &arguments)?);
    }
    let needed = needed(file, &planned, target);
    planned.retain(|stage| needed.contains(&stage.number));
    let steps = planned.iter().map(|planned| planned.stage.steps.len() + 1).sum();
    Ok(Plan { stages: planned, steps, arguments })
}

/// The stage that a name or number stands for, among the first `before`.
pub fn find(file: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    file.stage(name).or_else(|| name.parse().ok()).filter(|number| *number < before)
}

fn arguments(file: &Dockerfile, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    let mut arguments = BTreeMap::new();
    for side in ["BUILD", "TARGET"] {
        for (name, value) in [("PLATFORM", "linux/amd64"), ("OS", "linux"), ("ARCH", "amd64"), ("VARIANT", "")] {
            arguments.insert(format!("{side}{name}"), value.to_owned());
        }
    }
    for (line, name, default) in &file.arguments {
        let value = match (given.get(name), default) {
            (Some(given), _) => given.clone(),
            (None, Some(default)) => expand::word(default, file.escape, &|name| arguments.get(name).cloned())
                .map_err(|reason| ParseError { line: *line, reason })?,
            (None, None) => continue,
        };
        arguments.insert(name.clone(), value);
    }
    Ok(arguments)
}

fn begin<'a>(
    file: &'a Dockerfile,
    number: usize,
    stage: &'a Stage,
    arguments: &BTreeMap<String, String>,
) -> Result<Planned<'a>, Error> {
    let refuse = |reason: String| ParseError { line: stage.line, reason };
    let lookup = |name: &str| arguments.get(name).cloned();
    let word = |text: &str| expand::word(text, file.escape, &lookup).map_err(refuse);
    let image = word(&stage.from.image)?;
    if image.is_empty() {
        return Err(refuse(format!("base name ({}) should not be blank", stage.from.image)).into());
    }
    let platform = stage.from.platform.as_deref().map(word).transpose()?.filter(|platform| !platform.is_empty());
    let base = match file.stage(&image).filter(|earlier| *earlier < number) {
        Some(earlier) => Base::Stage(earlier),
        None if image == "scratch" => Base::Scratch,
        None => Base::Image(image),
    };
    Ok(Planned { number, stage, base, platform })
}

/// The stages that `target` needs, itself included. Each refers to earlier ones only, so this ends.
fn needed(file: &Dockerfile, planned: &[Planned<'_>], target: usize) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut open = vec![target];
    while let Some(number) = open.pop() {
        let Some(stage) = planned.get(number).filter(|_| needed.insert(number)) else { continue };
        if let Base::Stage(earlier) = stage.base {
            open.push(earlier);
        }
        for step in &stage.stage.steps {
            if let Instruction::Transfer(transfer) = &step.instruction {
                open.extend(transfer.from.as_deref().and_then(|name| find(file, name, number)));
            }
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(text: &str, target: Option<&str>) -> Result<Vec<usize>, String> {
        let file = Dockerfile::parse(text).unwrap();
        let plan = plan(&file, target, &BTreeMap::from([("V".to_owned(), "9".to_owned())]));
        plan.map(|plan| plan.stages.iter().map(|stage| stage.number).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn only_stages_that_are_needed_are_built() {
        let text =
            "FROM a AS one\nFROM b AS two\nFROM one AS three\nCOPY --from=0 x y\nFROM c\nCOPY --from=Three x y\n";
        assert_eq!(stages(text, None), Ok(vec![0, 2, 3]));
        assert_eq!(stages(text, Some("two")), Ok(vec![1]));
        assert_eq!(stages(text, Some("2")), Ok(vec![0, 2]));
        assert!(stages(text, Some("four")).unwrap_err().contains("four"));
    }

    #[test]
    fn arguments_before_the_first_stage_are_for_from_alone() {
        let text = "ARG N=box\nARG V=1\nARG T=$N:$V\nFROM --platform=$TARGETPLATFORM ${T} AS x\nFROM ${U:-x}\n";
        let file = Dockerfile::parse(text).unwrap();
        let given = BTreeMap::from([("V".to_owned(), "9".to_owned())]);
        let plan = plan(&file, None, &given).unwrap();
        assert_eq!(plan.stages[0].base, Base::Image("box:9".into()));
        assert_eq!(plan.stages[0].platform.as_deref(), Some("linux/amd64"));
        assert_eq!((&plan.stages[1].base, plan.steps), (&Base::Stage(0), 2));
        assert!(stages("FROM $NONE\n", None).unwrap_err().contains("line 1: base name ($NONE) should not be blank"));
    }
}
