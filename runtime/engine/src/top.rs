//! `top`: a container's processes as a table. Docker's daemon runs `ps`; a host without programs makes the table
//! itself, for the options of `ps` that people use.

use bollard_stubs::models::ContainerTopResponse;

use super::processes::{PAGE_BYTES, ProcessInfo, TICKS_PER_S};
use crate::clock;
use crate::engine::Engine;
use crate::error::Error;
use crate::plan::spec::IDS;

/// Columns of `ps -ef`, Docker's default.
const FULL: [&str; 8] = ["uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];
/// Columns of `ps aux`.
const USERS: [&str; 11] = ["user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "command"];

/// What columns are computed from, beside the process.
struct Surroundings {
    base: u32,
    uptime_ticks: u64,
    boot_s: u64,
    memory_bytes: u64,
}

impl Engine {
    /// The processes of a container; `options` are those of `ps`, empty for Docker's default.
    pub fn top(&self, wanted: &str, options: &str) -> Result<ContainerTopResponse, Error> {
        let container = self.find(wanted)?;
        let columns = columns(options)?;
        let processes = self.processes(&container)?;
        let info = rustix::system::sysinfo();
        let uptime_s = u64::try_from(info.uptime).unwrap_or(0);
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        let memory_bytes = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
        let around = Surroundings {
            base: container.config().uid_base.unwrap_or(0),
            uptime_ticks: uptime_s * TICKS_PER_S,
            boot_s: (clock::unix_ms() / 1000).saturating_sub(uptime_s),
            memory_bytes,
        };
        let row = |process: &ProcessInfo| columns.iter().map(|column| cell(column, process, &around)).collect();
        let rows = processes.iter().map(row).collect();
        self.tell_of(&container, "top", &[]);
        let titles = columns.iter().map(|column| title(column)).collect();
        Ok(ContainerTopResponse { titles: Some(titles), processes: Some(rows) })
    }
}

/// The columns that options of `ps` ask for.
fn columns(options: &str) -> Result<Vec<String>, Error> {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut words = options.split_ascii_whitespace();
    match words.next().map(|word| word.trim_start_matches('-')) {
        None | Some("ef" | "fe" | "f") => Ok(list(&FULL)),
        Some("aux" | "auxww" | "u" | "axu") => Ok(list(&USERS)),
        Some(word) => {
            // `-o pid,cmd`, `-eo pid,cmd`, `-opid`, and more than one of them.
            let mut found = Vec::new();
            let mut word = Some(word);
            while let Some(text) = word {
                let rest = text.strip_prefix(['e', 'A', 'a', 'x']).unwrap_or(text);
                let Some(inline) = rest.strip_prefix('o') else {
                    return Err(unknown(options));
                };
                let names = if inline.is_empty() { words.next().ok_or_else(|| unknown(options))? } else { inline };
                found.extend(names.split(',').map(|name| name.split('=').next().unwrap_or(name).to_owned()));
                word = words.next().map(|word| word.trim_start_matches('-'));
            }
            match found.iter().find(|name| title(name).is_empty()) {
                None => Ok(found),
                Some(_) => Err(unknown(options)),
            }
        }
    }
}

fn unknown(options: &str) -> Error {
    Error::BadParameter(format!(
        "ps options {options:.100?} are not understood: there is no ps on this host; use -ef, aux, or -o with columns \
         such as pid,ppid,user,stat,time,cmd"
    ))
}

/// Title of a column; empty: there is no such column.
fn title(column: &str) -> String {
    match column {
        "uid" | "user" | "euser" | "pid" | "ppid" | "c" | "stime" | "tty" | "time" | "cmd" | "vsz" | "rss" | "stat"
        | "start" | "command" => column.trim_start_matches("eu").to_uppercase(),
        "%cpu" | "pcpu" => "%CPU".into(),
        "%mem" | "pmem" => "%MEM".into(),
        "comm" | "ucmd" => "COMMAND".into(),
        "args" => "COMMAND".into(),
        "s" | "state" => "S".into(),
        "etime" => "ELAPSED".into(),
        "ni" | "nice" => "NI".into(),
        "nlwp" | "thcount" => "NLWP".into(),
        _ => String::new(),
    }
}

fn cell(column: &str, process: &ProcessInfo, around: &Surroundings) -> String {
    let ran_ticks = around.uptime_ticks.saturating_sub(process.start_ticks);
    let percent = || process.cpu_ticks.saturating_mul(1000) / ran_ticks.max(1);
    let tenths = |value: u64| format!("{}.{}", value / 10, value % 10);
    let rss_bytes = process.resident_pages.saturating_mul(PAGE_BYTES);
    match column {
        "uid" | "user" | "euser" => user(process.uid, around.base),
        "pid" => process.pid.to_string(),
        "ppid" => process.ppid.to_string(),
        "c" => (percent() / 10).to_string(),
        "%cpu" | "pcpu" => tenths(percent()),
        "%mem" | "pmem" => tenths(rss_bytes.saturating_mul(1000) / around.memory_bytes.max(1)),
        "stime" | "start" => {
            let started_s = around.boot_s + process.start_ticks / TICKS_PER_S;
            let text = clock::rfc3339(started_s.saturating_mul(1_000_000_000));
            // A day later the date says more than the hour.
            let part = if ran_ticks < 86_400 * TICKS_PER_S { text.get(11..16) } else { text.get(5..10) };
            part.unwrap_or_default().into()
        }
        "tty" => tty(process.tty),
        "time" => hours(process.cpu_ticks / TICKS_PER_S),
        "etime" => hours(ran_ticks / TICKS_PER_S),
        "vsz" => (process.virtual_bytes / 1024).to_string(),
        "rss" => (rss_bytes / 1024).to_string(),
        "stat" | "s" | "state" => process.state.to_string(),
        "comm" | "ucmd" => process.comm.clone(),
        "ni" | "nice" => process.nice.to_string(),
        "nlwp" | "thcount" => process.threads.to_string(),
        _ => process.args.clone(),
    }
}

/// The user inside, which is who it is to those that know the container; what isn't mapped is the host's.
fn user(uid: u32, base: u32) -> String {
    match uid.checked_sub(base).filter(|inside| base == 0 || *inside < IDS).unwrap_or(uid) {
        0 => "root".into(),
        uid => uid.to_string(),
    }
}

/// `pts/3`, or `?`. The device's number is packed as in stat(2)'s `st_rdev`, in 32 bits.
fn tty(device: i64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".into(),
    }
}

fn hours(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ps_become_columns() {
        assert_eq!(columns("").unwrap(), FULL);
        assert_eq!(columns("aux").unwrap(), USERS);
        assert_eq!(columns("-o pid,cmd").unwrap(), ["pid", "cmd"]);
        assert_eq!(columns("-eo pid,ppid -o comm").unwrap(), ["pid", "ppid", "comm"]);
        for options in ["-o", "-o nope", "--forest", "-ef --forest x".get(4..).unwrap()] {
            assert!(columns(options).is_err(), "{options}");
        }
    }

    #[test]
    fn cells_read_as_those_of_ps() {
        let process = ProcessInfo {
            pid: 7,
            ppid: 1,
            uid: 1_000_033,
            state: 'S',
            comm: "sh".into(),
            args: "sh -c x".into(),
            tty: 0x8803,
            cpu_ticks: 36_615,
            start_ticks: 100,
            ..Default::default()
        };
        let around =
            Surroundings { base: 1_000_000, uptime_ticks: 1_000_000, boot_s: 1_700_000_000, memory_bytes: 1 << 30 };
        let row: Vec<String> = FULL.iter().map(|column| cell(column, &process, &around)).collect();
        assert_eq!(row, ["33", "7", "1", "3", "22:13", "pts/3", "00:06:06", "sh -c x"]);
        assert_eq!(user(1_000_000, 1_000_000), "root");
        assert!(FULL.iter().chain(&USERS).all(|column| !title(column).is_empty()));
    }
}
