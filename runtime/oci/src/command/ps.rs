//! `ps`: the processes in a container, as the host numbers them; the table is that of ps(1) with `-ef`, or with the options
//! behind the ID, by the host's own program.

use std::process::{Command, Stdio};

use super::Result;
use super::args::Args;
use super::record;
use super::report::{Doing, Failure};
use super::show::print;

/// Clock ticks in a second, as `/proc` counts time on x86-64 (`USER_HZ`).
const TICKS: u64 = 100;
/// Longest command line that is shown.
const MAX_COMMAND: usize = 4096;

/// `ps`.
pub(super) fn ps(args: &Args) -> Result<u8> {
    let container = record::open(args, false)?;
    let pids = container.pids()?;
    match args.text("format")? {
        Some("json") => print(&serde_json::to_string(&pids)?)?,
        None | Some("table" | "") if args.operands.len() > 1 => by_program(args, &pids)?,
        None | Some("table" | "") => {
            print("UID          PID    PPID  C STIME TTY          TIME CMD")?;
            let booted = booted();
            let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            // One may have ended since.
            pids.iter().filter_map(|pid| line(*pid, booted, &users)).try_for_each(|line| print(&line))?;
        }
        Some(other) => return Err(Failure::new(format!("--format {other:?}: json and table are known"))),
    }
    Ok(0)
}

/// The lines of ps(1) that are about these processes, and its headings.
fn by_program(args: &Args, pids: &[u32]) -> Result<()> {
    let mut command = Command::new("ps");
    let output = command.args(&args.operands[1..]).stdin(Stdio::null()).output();
    let output = output.doing(|| "run ps, whose options these are: is the package procps installed?".into())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!(
            "ps refuses its options: {}",
            said.trim().lines().next().unwrap_or_default()
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines =
        chosen(&text, pids).ok_or_else(|| Failure::new("ps shows no column PID: ask for it, as in `-o pid,args`"))?;
    lines.iter().try_for_each(|line| print(line))
}

/// `None`: there is no column of process IDs.
fn chosen<'a>(table: &'a str, pids: &[u32]) -> Option<Vec<&'a str>> {
    let mut lines = table.lines();
    let heading = lines.next()?;
    let column = heading.split_ascii_whitespace().position(|word| word == "PID")?;
    let is_of_it = |line: &&str| {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: u32| pids.contains(&pid))
    };
    Some(std::iter::once(heading).chain(lines.filter(is_of_it)).collect())
}

/// When the kernel started, in seconds since 1970.
fn booted() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

fn line(pid: u32, booted: u64, users: &str) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).ok();
    let uid = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
    let mut command = read("cmdline")?;
    command.truncate(MAX_COMMAND);
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    let name = users.lines().find_map(|l| {
        let mut fields = l.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    row(&name.unwrap_or_else(|| uid.to_string()), pid, &stat, &command, booted)
}

/// One row from `/proc/PID/stat`; times are UTC.
fn row(user: &str, pid: u32, stat: &str, command: &str, booted: u64) -> Option<String> {
    // The name, in parentheses, may hold anything.
    let (before, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    let (ppid, tty) = (number(1)?, number(4)?);
    let used = (number(11)? + number(12)?) / TICKS;
    let started = booted + number(19)? / TICKS;
    let terminal = match tty >> 8 & 0xfff {
        major @ 136..=143 => format!("pts/{}", (major - 136) << 8 | tty & 0xff | tty >> 12 & 0xf_ff00),
        _ => "?".into(),
    };
    let (hour, minute) = (started / 3600 % 24, started / 60 % 60);
    let time = format!("{:02}:{:02}:{:02}", used / 3600, used / 60 % 60, used % 60);
    let command = match (command, before.split_once('(')) {
        ("", Some((_, name))) => format!("[{name}]"),
        _ => command.to_owned(),
    };
    Some(format!("{user:<8} {pid:>7} {ppid:>7}  0 {hour:02}:{minute:02} {terminal:<8} {time} {command}"))
}

#[cfg(test)]
mod tests {
    use super::{chosen, row};

    #[test]
    fn of_the_programs_lines_those_of_the_container_are_shown() {
        let table = "  PPID    PID CMD\n     1      7 a\n     7     42 b c\n    42    420 d\n";
        assert_eq!(chosen(table, &[42, 7]).unwrap(), ["  PPID    PID CMD", "     1      7 a", "     7     42 b c"]);
        assert!(chosen("CMD\nx\n", &[42]).is_none() && chosen("", &[42]).is_none());
    }

    #[test]
    fn a_row_is_as_ps_shows_it() {
        let stat = "42 (a) b) S 7 42 42 34817 42 4194560 0 0 0 0 6000 100 0 0 20 0 1 0 360000 0 0";
        let line = row("root", 42, stat, "", 1_700_000_000).unwrap();
        assert_eq!(line, "root          42       7  0 23:13 pts/1    00:01:01 [a) b]");
        assert!(row("root", 42, "42 (torn", "", 0).is_none());
    }
}
