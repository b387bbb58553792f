//! A stage, step by step.

use std::collections::BTreeMap;

use keel_store::Draft;

use crate::build::{Build, is_predefined};
use crate::context::Context;
use crate::dockerfile::expand;
use crate::dockerfile::file::parse_one;
use crate::dockerfile::{Dockerfile, Instruction, Step};
use crate::error::Error;
use crate::plan::{Base, Plan, Planned};
use crate::settings;

/// A stage under way.
pub struct State<'b> {
    /// The image so far.
    pub draft: Draft,
    /// The Dockerfile.
    pub file: &'b Dockerfile,
    /// The client's files.
    pub context: &'b Context,
    /// The stage's number.
    pub number: usize,
    /// Build arguments that the stage has asked for, with their values.
    pub arguments: BTreeMap<String, String>,
    /// Proxies that the client gave.
    pub proxies: BTreeMap<String, String>,
    has_command: bool,
}

impl State<'_> {
    /// The value of a variable: of the image's environment, then of arguments.
    fn value(&self, name: &str) -> Option<String> {
        let env = &self.draft.config().env;
        let argument = || self.arguments.get(name).or_else(|| self.proxies.get(name)).cloned();
        let is_set = env.iter().any(|line| line.split('=').next() == Some(name));
        if is_set { settings::variable(env, name) } else { argument().or_else(|| settings::variable(env, name)) }
    }

    /// A word with the values of its variables.
    pub fn word(&self, text: &str) -> Result<String, Error> {
        expand::word(text, self.file.escape, &|name| self.value(name)).map_err(Error::Bad)
    }

    /// Arguments that commands get: those that the environment doesn't hide, `NAME=value`.
    pub fn visible_arguments(&self) -> Vec<String> {
        let is_hidden = |name: &str| self.draft.config().env.iter().any(|line| line.split('=').next() == Some(name));
        let visible = self.arguments.iter().filter(|(name, _)| !is_hidden(name) && !is_predefined(name));
        visible.map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl Build<'_> {
    /// Takes a stage's steps.
    pub fn stage(
        &mut self,
        file: &Dockerfile,
        plan: &Plan<'_>,
        planned: &Planned<'_>,
        context: &Context,
        is_last: bool,
    ) -> Result<Draft, Error> {
        let stage = planned.stage;
        self.begin_step(&stage.text)?;
        let draft = self.begin(planned).map_err(self.in_step(stage.line, &stage.text))?;
        let given = &self.options.arguments;
        let proxies =
            given.iter().filter(|(name, _)| is_predefined(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
        let arguments = BTreeMap::new();
        let mut state = State { draft, file, context, number: planned.number, arguments, proxies, has_command: false };
        self.triggers(&mut state, plan).map_err(self.in_step(stage.line, &stage.text))?;
        let labels = self.labels(file.escape).filter(|_| is_last);
        for step in stage.steps.iter().chain(&labels) {
            self.begin_step(&step.text)?;
            self.one(&mut state, plan, step).map_err(self.in_step(step.line, &step.text))?;
        }
        Ok(state.draft)
    }

    fn begin_step(&mut self, text: &str) -> Result<(), Error> {
        self.interrupt.check()?;
        self.step.0 += 1;
        let (number, total) = self.step;
        self.say(format!("Step {number}/{total} : {text}\n"));
        Ok(())
    }

    fn begin(&mut self, planned: &Planned<'_>) -> Result<Draft, Error> {
        let draft = match &planned.base {
            Base::Scratch => {
                self.say(" ---> \n");
                return Ok(Draft::scratch());
            }
            Base::Stage(number) => self.done.get(number).cloned(),
            Base::Image(name) => Some(self.base(name, planned.platform.as_deref())?),
        };
        let draft = draft.ok_or_else(|| Error::Bad("the stage it begins with was not built".into()))?;
        self.say(format!(" ---> {}\n", draft.id()?.short()));
        Ok(draft)
    }

    /// Takes the steps that the base image asks for.
    fn triggers(&mut self, state: &mut State<'_>, plan: &Plan<'_>) -> Result<(), Error> {
        let mut config = state.draft.config().clone();
        let Some(triggers) = config.on_build.take().filter(|triggers| !triggers.is_empty()) else { return Ok(()) };
        self.say(match triggers.len() {
            1 => "# Executing 1 build trigger\n".into(),
            count => format!("# Executing {count} build triggers\n"),
        });
        // From here on they are done with; a step of its own would make another image of the same files.
        state.draft.set_config(config);
        for text in triggers {
            let step = parse_one(&text).map_err(|reason| Error::Bad(format!("ONBUILD {text}: {reason}")))?;
            if matches!(step.instruction, Instruction::From(_) | Instruction::OnBuild(_) | Instruction::Maintainer(_)) {
                return Err(Error::Bad(format!("ONBUILD {text} isn't allowed as a trigger")));
            }
            self.one(state, plan, &step)?;
        }
        Ok(())
    }

    /// The client's labels as a step.
    fn labels(&self, escape: char) -> Option<Step> {
        let quoted = |value: &str| {
            let mut text = String::from("\"");
            for character in value.chars() {
                if matches!(character, '"' | '$') || character == escape {
                    text.push(escape);
                }
                text.push(character);
            }
            text + "\""
        };
        let labels = &self.options.labels;
        if labels.is_empty() {
            return None;
        }
        let shown: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let pairs = labels.iter().map(|(name, value)| (quoted(name), quoted(value))).collect();
        Some(Step { line: 0, text: format!("LABEL {}", shown.join(" ")), instruction: Instruction::Label(pairs) })
    }

    fn one(&mut self, state: &mut State<'_>, plan: &Plan<'_>, step: &Step) -> Result<(), Error> {
        match &step.instruction {
            Instruction::Arg(arguments) => self.arguments(state, plan, arguments),
            Instruction::Run(run) => self.run_command(state, run),
            Instruction::Transfer(transfer) => self.transfer(state, transfer),
            Instruction::From(_) => Err(Error::Bad("FROM begins a stage".into())),
            instruction => self.setting(state, instruction),
        }
    }

    fn arguments(
        &mut self,
        state: &mut State<'_>,
        plan: &Plan<'_>,
        arguments: &[(String, Option<String>)],
    ) -> Result<(), Error> {
        let mut shown = Vec::new();
        for (name, default) in arguments {
            let name = state.word(name)?;
            let default = default.as_deref().map(|default| state.word(default)).transpose()?;
            self.asked.insert(name.clone());
            let given = self.options.arguments.get(&name).cloned();
            let value = given.or_else(|| default.clone()).or_else(|| plan.arguments.get(&name).cloned());
            shown.push(default.map_or_else(|| name.clone(), |default| format!("{name}={default}")));
            if let Some(value) = value {
                state.arguments.insert(name, value);
            }
        }
        let text = format!("ARG {}", shown.join(" "));
        self.without_files(state, text)
    }

    fn setting(&mut self, state: &mut State<'_>, instruction: &Instruction) -> Result<(), Error> {
        let mut config = state.draft.config().clone();
        let mut has_command = state.has_command;
        let lookup = |name: &str| state.value(name);
        let text = settings::apply(&mut config, instruction, state.file.escape, &lookup, &mut has_command);
        let text = text.map_err(Error::Bad)?;
        state.has_command = has_command;
        let created_by = format!("/bin/sh -c #(nop) {text}");
        let folder = matches!(instruction, Instruction::Workdir(_)).then(|| config.working_dir.clone());
        let author = match instruction {
            Instruction::Maintainer(who) => Some(who.clone()),
            _ => None,
        };
        let words = [text.as_str()];
        self.take(&mut state.draft, &words, config, created_by, author, |build, draft| match folder {
            // Commands and files that come next find their folder there.
            Some(folder) => build.make_folder(draft, &folder),
            None => Ok(None),
        })
    }

    fn without_files(&mut self, state: &mut State<'_>, text: String) -> Result<(), Error> {
        let config = state.draft.config().clone();
        let created_by = format!("/bin/sh -c #(nop) {text}");
        self.take(&mut state.draft, &[&text], config, created_by, None, |_, _| Ok(None))
    }
}
