//! What runs, and as whom: `process`.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::lab::Lab;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("process.cwd", "config.md#process", cwd),
    Case::new("process.cwd-must-be-absolute", "config.md#process", cwd_relative),
    Case::new("process.cwd-is-made", "other runtimes", cwd_made),
    Case::new("process.cwd-that-is-a-file", "config.md#process", cwd_file),
    Case::new("process.args", "config.md#posix-process", args),
    Case::new("process.args-must-not-be-empty", "config.md#posix-process", args_empty),
    Case::new("process.program-is-looked-up-in-path", "config.md#posix-process", path_lookup),
    Case::new("process.program-relative-to-cwd", "config.md#posix-process", program_relative),
    Case::new("process.missing-program", "config.md#posix-process", program_missing),
    Case::new("process.program-that-is-no-program", "config.md#posix-process", program_bad),
    Case::new("process.env", "config.md#posix-process", env),
    Case::new("process.exit-code", "other runtimes", exit_code),
    Case::new("process.standard-streams", "other runtimes", streams),
    Case::new("process.uid-and-gid", "config.md#posix-platform-user", user),
    Case::new("process.additional-groups", "config.md#posix-platform-user", groups),
    Case::new("process.no-groups-of-the-caller", "config.md#posix-platform-user", no_groups),
    Case::new("process.umask", "config.md#posix-platform-user", umask),
    Case::new("process.umask-of-its-own-by-default", "other runtimes", umask_default),
    Case::new("process.rlimits", "config.md#posix-process", rlimits),
    Case::v2("process.rlimits-raised", "config.md#posix-process", rlimits_raised),
    Case::new("process.rlimit-infinity", "config.md#posix-process", rlimit_infinity),
    Case::new("process.rlimit-of-an-unknown-type", "config.md#posix-process", rlimit_unknown),
    Case::new("process.rlimit-given-twice", "config.md#posix-process", rlimit_twice),
    Case::new("process.rlimit-soft-above-hard", "config.md#posix-process", rlimit_inverted),
    Case::new("process.oom-score", "config.md#linux-process", oom_score),
    Case::new("process.oom-score-unchanged-if-absent", "config.md#linux-process", oom_score_absent),
    Case::new("process.scheduler-batch", "config.md#linux-process", scheduler_batch),
    Case::new("process.scheduler-fifo", "config.md#linux-process", scheduler_fifo),
    Case::new("process.scheduler-round-robin", "config.md#linux-process", scheduler_rr),
    Case::new("process.scheduler-idle", "config.md#linux-process", scheduler_idle),
    Case::new("process.scheduler-deadline", "config.md#linux-process", scheduler_deadline),
    Case::new("process.scheduler-of-an-unknown-policy", "config.md#linux-process", scheduler_unknown),
    Case::new("process.io-priority", "config.md#linux-process", io_priority),
    Case::new("process.io-priority-of-an-unknown-class", "config.md#linux-process", io_priority_unknown),
    Case::new("process.signals-are-as-usual", "other runtimes", signals),
    Case::new("process.leads-a-session", "other runtimes", session),
    Case::new("process.personality-linux32", "config-linux.md#personality", personality),
    Case::new("process.unknown-properties-are-ignored", "config.md#extensibility", unknown_properties),
    Case::new("process.version-1.2-is-taken", "config.md#specification-version", version_current),
    Case::new("process.version-of-another-generation", "config.md#specification-version", version_wrong),
];

fn cwd(lab: &Lab) -> Result<()> {
    same!(lab.see(&lab.spec().set("/process/cwd", json!("/work")))?["cwd"], "/work", "working folder");
    Ok(())
}

fn cwd_relative(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().set("/process/cwd", json!("work"))).map(drop)
}

fn cwd_made(lab: &Lab) -> Result<()> {
    same!(lab.see(&lab.spec().set("/process/cwd", json!("/deep/er")))?["cwd"], "/deep/er", "working folder");
    Ok(())
}

fn cwd_file(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().set("/process/cwd", json!("/bin/probe"))).map(drop)
}

fn args(lab: &Lab) -> Result<()> {
    let words = json!(["/bin/probe", "do", "[[\"see\"]]", "", "two words", "ünï", "--flag"]);
    let output = lab.run_any(&lab.spec().set("/process/args", words.clone()))?;
    same!(crate::bundle::Answers::parse(&output.stdout)?.ok(0)?["args"], words, "arguments");
    Ok(())
}

fn args_empty(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().set("/process/args", json!([])))?;
    lab.refused(&lab.spec().set("/process/args", Value::Null)).map(drop)
}

fn path_lookup(lab: &Lab) -> Result<()> {
    fs::create_dir(lab.bundle.inside("work/tools"))?;
    symlink("/bin/probe", lab.bundle.inside("work/tools/tool"))?;
    let spec = lab.spec().set("/process/env", json!(["PATH=/nowhere:/work/tools:/bin", lab.marker()]));
    let output = lab.run_any(&spec.set("/process/args", json!(["tool", "do", "[[\"see\"]]"])))?;
    same!(output.code, 0, "exit code ({})", output.stderr.trim());
    same!(crate::bundle::Answers::parse(&output.stdout)?.ok(0)?["args"][0], "tool", "argument 0");
    Ok(())
}

fn program_relative(lab: &Lab) -> Result<()> {
    let output = lab.run_any(&lab.spec().set("/process/args", json!(["bin/probe", "do", "[[\"exit\",7]]"])))?;
    same!(output.code, 7, "exit code of bin/probe, run in / ({})", output.stderr.trim());
    Ok(())
}

fn program_missing(lab: &Lab) -> Result<()> {
    for program in ["/no/such-program", "such-program"] {
        let said = lab.refused(&lab.spec().set("/process/args", json!([program])))?;
        ensure!(said.contains("such-program"), "the message doesn't name {program}: {said}");
    }
    Ok(())
}

fn program_bad(lab: &Lab) -> Result<()> {
    fs::write(lab.bundle.inside("work/text"), "no program")?;
    lab.refused(&lab.spec().set("/process/args", json!(["/work/text"])))?;
    fs::set_permissions(lab.bundle.inside("work/text"), Permissions::from_mode(0o755))?;
    lab.refused(&lab.spec().set("/process/args", json!(["/work/text"])))?;
    lab.refused(&lab.spec().set("/process/args", json!(["/work"]))).map(drop)
}

fn env(lab: &Lab) -> Result<()> {
    let variables = json!(["PATH=/bin", "EMPTY=", "TEXT=a b=c", "LANG=C.UTF-8", lab.marker()]);
    let spec = lab.spec().set("/process/env", variables);
    lab.bundle.configure(&crate::lab::with_steps(spec, &json!([["see"]])))?;
    let mut command = lab.command(&["run", "--bundle", &lab.bundle_path(), &lab.new_id()]);
    let output = lab.run_command(command.env("OF_THE_CALLER", "1"))?;
    let answers = crate::bundle::Answers::parse(&output.stdout)?;
    let seen = &answers.ok(0)?["env"];
    same!(seen["EMPTY"], "", "empty variable");
    same!(seen["TEXT"], "a b=c", "variable with = in its value");
    same!(seen["LANG"], "C.UTF-8", "variable");
    ensure!(seen["OF_THE_CALLER"].is_null(), "a variable of the caller is seen inside");
    Ok(())
}

fn exit_code(lab: &Lab) -> Result<()> {
    for code in [0, 1, 42, 255] {
        let spec = lab.spec().set("/process/args", json!(["/bin/probe", "do", format!("[[\"exit\",{code}]]")]));
        same!(lab.run_any(&spec)?.code, code, "exit code of `run`");
    }
    Ok(())
}

fn streams(lab: &Lab) -> Result<()> {
    fs::write(lab.path("input"), "some input\n")?;
    let steps = json!([["stdin"], ["complain", "an error\n"]]);
    lab.bundle.configure(&crate::lab::with_steps(lab.spec(), &steps))?;
    let mut command = lab.command(&["run", "--bundle", &lab.bundle_path(), &lab.new_id()]);
    let output = lab.run_command(command.stdin(File::open(lab.path("input"))?))?;
    same!(crate::bundle::Answers::parse(&output.stdout)?.text(0)?, "some input\n", "standard input");
    ensure!(output.stderr.contains("an error\n"), "standard error: {:?}", output.stderr);
    Ok(())
}

fn user(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec().set("/process/user", json!({ "uid": 1000, "gid": 1001 })))?;
    same!(seen["uid"], "1000 1000 1000 1000", "user IDs");
    same!(seen["gid"], "1001 1001 1001 1001", "group IDs");
    Ok(())
}

fn groups(lab: &Lab) -> Result<()> {
    let user = json!({ "uid": 5, "gid": 6, "additionalGids": [7, 100000] });
    let seen = lab.see(&lab.spec().set("/process/user", user))?;
    let mut groups: Vec<u64> = seen["groups"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    groups.retain(|group| *group != 6);
    same!(groups, [7, 100_000], "supplementary groups");
    Ok(())
}

fn no_groups(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec().set("/process/user", json!({ "uid": 5, "gid": 6 })))?;
    let groups: Vec<&Value> = seen["groups"].as_array().into_iter().flatten().filter(|g| **g != 6).collect();
    ensure!(groups.is_empty(), "supplementary groups: {groups:?}");
    Ok(())
}

fn umask(lab: &Lab) -> Result<()> {
    for mask in [0o027, 0, 0o777] {
        let user = json!({ "uid": 0, "gid": 0, "umask": mask });
        same!(lab.see(&lab.spec().set("/process/user", user))?["umask"], mask, "umask");
    }
    Ok(())
}

fn umask_default(lab: &Lab) -> Result<()> {
    same!(lab.see(&lab.spec())?["umask"], 0o022, "umask");
    Ok(())
}

fn rlimits(lab: &Lab) -> Result<()> {
    let wanted = [
        ("RLIMIT_AS", 1u64 << 40, 1u64 << 41),
        ("RLIMIT_CORE", 0, 4096),
        ("RLIMIT_CPU", 1000, 2000),
        ("RLIMIT_DATA", 1 << 40, 1 << 41),
        ("RLIMIT_FSIZE", 1 << 30, 1 << 31),
        ("RLIMIT_LOCKS", 100, 200),
        ("RLIMIT_MEMLOCK", 1 << 15, 1 << 16),
        ("RLIMIT_MSGQUEUE", 1 << 16, 1 << 17),
        ("RLIMIT_NOFILE", 100, 500),
        ("RLIMIT_NPROC", 3000, 4000),
        ("RLIMIT_RTTIME", 1 << 20, 1 << 21),
        ("RLIMIT_SIGPENDING", 500, 600),
        ("RLIMIT_STACK", 4 << 20, 8 << 20),
    ];
    let list: Vec<Value> =
        wanted.iter().map(|(name, soft, hard)| json!({ "type": name, "soft": soft, "hard": hard })).collect();
    let seen = lab.see(&lab.spec().set("/process/rlimits", json!(list)))?;
    for (name, soft, hard) in wanted {
        same!(seen["rlimits"][name], json!([soft, hard]), "{name}");
    }
    Ok(())
}

/// Both are 0 by default, and not every caller may raise them.
fn rlimits_raised(lab: &Lab) -> Result<()> {
    let list = json!([
        { "type": "RLIMIT_NICE", "soft": 10, "hard": 20 }, { "type": "RLIMIT_RTPRIO", "soft": 3, "hard": 5 },
    ]);
    let seen = lab.see(&lab.spec().set("/process/rlimits", list))?;
    same!(seen["rlimits"]["RLIMIT_NICE"], json!([10, 20]), "RLIMIT_NICE");
    same!(seen["rlimits"]["RLIMIT_RTPRIO"], json!([3, 5]), "RLIMIT_RTPRIO");
    Ok(())
}

fn rlimit_infinity(lab: &Lab) -> Result<()> {
    let list = json!([{ "type": "RLIMIT_CORE", "soft": 5, "hard": u64::MAX }]);
    let seen = lab.see(&lab.spec().set("/process/rlimits", list))?;
    same!(seen["rlimits"]["RLIMIT_CORE"], json!([5, null]), "RLIMIT_CORE");
    Ok(())
}

fn rlimit_unknown(lab: &Lab) -> Result<()> {
    let list = json!([{ "type": "RLIMIT_NOSUCH", "soft": 5, "hard": 5 }]);
    lab.refused(&lab.spec().set("/process/rlimits", list)).map(drop)
}

fn rlimit_twice(lab: &Lab) -> Result<()> {
    let list =
        json!([{ "type": "RLIMIT_CORE", "soft": 5, "hard": 5 }, { "type": "RLIMIT_CORE", "soft": 6, "hard": 6 }]);
    lab.refused(&lab.spec().set("/process/rlimits", list)).map(drop)
}

fn rlimit_inverted(lab: &Lab) -> Result<()> {
    let list = json!([{ "type": "RLIMIT_CORE", "soft": 6, "hard": 5 }]);
    lab.refused(&lab.spec().set("/process/rlimits", list)).map(drop)
}

fn oom_score(lab: &Lab) -> Result<()> {
    for score in [500, 1000, 0] {
        same!(lab.see(&lab.spec().set("/process/oomScoreAdj", json!(score)))?["oomScoreAdj"], score, "oom_score_adj");
    }
    Ok(())
}

fn oom_score_absent(lab: &Lab) -> Result<()> {
    let own = fs::read_to_string("/proc/self/oom_score_adj")?;
    same!(lab.see(&lab.spec())?["oomScoreAdj"].to_string(), own.trim(), "oom_score_adj");
    Ok(())
}

fn scheduler_batch(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec().set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 7 })))?;
    same!(seen["scheduler"]["policy"], 3, "policy");
    same!(seen["scheduler"]["nice"], 7, "nice");
    Ok(())
}

fn scheduler_fifo(lab: &Lab) -> Result<()> {
    let scheduler = json!({ "policy": "SCHED_FIFO", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    let seen = lab.see(&lab.spec().set("/process/scheduler", scheduler))?;
    same!(seen["scheduler"]["policy"], 1, "policy");
    same!(seen["scheduler"]["priority"], 5, "priority");
    same!(seen["scheduler"]["flags"], 1, "flags");
    Ok(())
}

fn scheduler_rr(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec().set("/process/scheduler", json!({ "policy": "SCHED_RR", "priority": 7 })))?;
    same!(seen["scheduler"]["policy"], 2, "policy");
    same!(seen["scheduler"]["priority"], 7, "priority");
    Ok(())
}

fn scheduler_idle(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec().set("/process/scheduler", json!({ "policy": "SCHED_IDLE" })))?;
    same!(seen["scheduler"]["policy"], 5, "policy");
    Ok(())
}

/// In nanoseconds; a tenth of a processor.
fn scheduler_deadline(lab: &Lab) -> Result<()> {
    let scheduler =
        json!({ "policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 90_000_000, "period": 100_000_000 });
    let seen = lab.see(&lab.spec().set("/process/scheduler", scheduler))?;
    same!(seen["scheduler"]["policy"], 6, "policy");
    for (name, nanoseconds) in [("runtime", 10_000_000), ("deadline", 90_000_000), ("period", 100_000_000)] {
        same!(seen["scheduler"][name], nanoseconds, "{name}");
    }
    Ok(())
}

fn scheduler_unknown(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().set("/process/scheduler", json!({ "policy": "SCHED_NOSUCH" }))).map(drop)
}

fn io_priority(lab: &Lab) -> Result<()> {
    for (class, number) in [("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3), ("IOPRIO_CLASS_RT", 1)] {
        let spec = lab.spec().set("/process/ioPriority", json!({ "class": class, "priority": 4 }));
        same!(lab.see(&spec)?["ioPriority"], number << 13 | 4, "I/O priority for {class}");
    }
    Ok(())
}

fn io_priority_unknown(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_NOSUCH", "priority": 4 })))
        .map(drop)
}

fn signals(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec())?;
    same!(seen["blocked"], "0000000000000000", "blocked signals");
    // The probe's own language ignores SIGPIPE.
    let ignored = u64::from_str_radix(seen["ignored"].as_str().unwrap_or_default(), 16)?;
    same!(ignored & !(1 << 12), 0, "ignored signals");
    Ok(())
}

fn session(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec())?;
    same!(seen["sid"], seen["pid"], "session");
    Ok(())
}

fn personality(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec().set("/linux/personality", json!({ "domain": "LINUX32" })))?;
    same!(seen["personality"], 8, "personality");
    same!(seen["machine"], "i686", "machine, as uname tells it");
    let seen = lab.see(&lab.spec().set("/linux/personality", json!({ "domain": "LINUX" })))?;
    same!(seen["personality"], 0, "personality");
    Ok(())
}

fn unknown_properties(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/org.example.unknown", json!({ "a": [1] })).set("/linux/unheardOf", json!(true));
    lab.see(&spec.set("/process/unheardOf", json!("x"))).map(drop)
}

fn version_current(lab: &Lab) -> Result<()> {
    for version in ["1.2.0", "1.1.0", "1.0.0", "1.2.1"] {
        lab.see(&lab.spec().set("/ociVersion", json!(version)))?;
    }
    Ok(())
}

fn version_wrong(lab: &Lab) -> Result<()> {
    for version in [json!("2.0.0"), json!("no version"), json!("")] {
        lab.refused(&lab.spec().set("/ociVersion", version))?;
    }
    Ok(())
}
