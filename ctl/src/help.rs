//! What `--help` teaches: each verb with examples and exit codes.

/// The help for a topic, or for all.
pub fn text(topic: Option<&str>) -> String {
    let Some(topic) = topic else {
        return format!("{OVERVIEW}{EXIT_CODES}");
    };
    match TOPICS.iter().find(|(name, _)| *name == topic) {
        Some((_, text)) => format!("{text}{COMMON}"),
        None => format!("There is no verb {topic:?}.\n\n{OVERVIEW}{EXIT_CODES}"),
    }
}

const OVERVIEW: &str = "\
keelctl: see and steer a Keel host, on its console or from afar

  keelctl [--host tcp://HOST:2376] [--cert-path FOLDER] [--json] VERB ...

The host
  status                     how it is: release, health, addresses, problems
  services                   its own programs
  logs SERVICE [-f]          what one of them wrote; `init` is PID 1
  boots [NUMBER | last]      when it booted, what ran, how that ended
  reboot, poweroff           stop everything in order, then go down
  version                    of keelctl and of the host
Releases
  update status              what runs, what is in the other slot, what boots next
  update check               what the repository offers
  update plan [VERSION]      what an install would fetch, copy and write
  update install [VERSION]   into the other slot; it boots next; also --bundle FILE, --from URL,
                             --disk [NAME]
  update bundles             which bundles are on disks that are plugged into the host
  update rollback            boot the other, good release next
  update pause, resume       stop what the host updates by itself, and let it go on
Containers (for more, point the docker command at the host)
  ps [-a]                    those that run, or all
  run [...] IMAGE [ARG...]   run one
On the host
  console                    the program on its consoles

`keelctl VERB --help` explains one. From afar, KEEL_HOST and KEEL_CERT_PATH (or DOCKER_HOST and DOCKER_CERT_PATH)
save typing; the folder holds ca.pem, cert.pem and key.pem. Without a host, keelctl speaks to
unix:///run/keel/api.sock.
";

const COMMON: &str = "
Every verb takes --json (what the API answered, for programs), --host and --cert-path.
`keelctl --help` lists the exit codes.
";

const EXIT_CODES: &str = "
Exit codes
   0  done                                10  a server on the network can't be reached
   1  a fault of Keel or of the machine   11  a signature is wrong
   2  the command line is wrong           12  metadata has expired
   3  the request is wrong                13  older than what is trusted or runs
   4  the thing named isn't there         14  content has the wrong digest
   5  the state doesn't allow it          15  the disk or a slot is too small
   6  a program of the host, or the       16  this release failed here before
      host itself, isn't answering        17  nothing newer than what runs
                                          18  the machine config is wrong
  `run` in the foreground ends with the container's own exit code.
";

const TOPICS: &[(&str, &str)] = &[
    (
        "status",
        "keelctl status

Shows the host at a glance: the running release and its slot, health, addresses, where the API listens,
releases that failed on this machine, and what is wrong, a line each.

Examples
  keelctl status
  keelctl --json status            one JSON document
",
    ),
    (
        "services",
        "keelctl services

Lists the host's own programs: state, whether a release is good only while it is up, process ID, restarts since
boot, and what it last said of itself.

Examples
  keelctl services
",
    ),
    (
        "logs",
        "keelctl logs SERVICE [-f]

Shows what a service wrote since boot, as far as it is kept. `init` is PID 1 itself.
-f, --follow goes on with what comes, until interrupted (Ctrl-C).

Examples
  keelctl logs updater
  keelctl logs init -f
",
    ),
    (
        "boots",
        "keelctl boots [NUMBER | last]

Lists the host's boots, newest first, across releases and slots: when, what ran, on trial or not, for how long, and how
it ended: who asked for the restart, which check failed, the words of a kernel panic, the watchdog, or nothing at all
(power cut). With a number, or `last` for the one before this: its last log lines and kernel messages. A `?` behind
the time: the clock wasn't known to be right.

Examples
  keelctl boots
  keelctl boots last
",
    ),
    (
        "update",
        "keelctl update status | check | plan [VERSION] | install [VERSION | --bundle FILE | --from URL | --disk [NAME]] |
               bundles | rollback | pause | resume

status      what runs, what the other slot holds, what boots next, which releases failed here; what the host
            does about updates by itself, and when
check       fetches and verifies the repository's metadata, writes nothing
plan        what an install would fetch, copy and write, and whether there is room; changes nothing
install     writes a release (the newest that may follow, or VERSION) into the slot that isn't running and makes it
            boot next; what runs is untouched. Leaving keelctl does not stop it: see `update status`.
            --bundle sends a release in one file (keel-image bundle); --from has the host fetch one over HTTP, of
            which it takes only what it doesn't have; --disk has it look for one on the disks that are plugged into
            it, a USB stick for example, NAME being as `update bundles` shows it, or the disk, the partition or the
            file. All are checked just as a repository is.
bundles     the bundles on those disks, and where else the host looked: at the start of each disk and partition, and
            for *.bundle in the top folder of FAT32 volumes
rollback    makes the other, good release boot next
pause       from now on the host updates nothing by itself, over restarts, too; what you ask for is still done
resume      it goes on, and looks for a release at once

A new release is on trial at first: if it doesn't prove itself, the machine goes back to this one by itself.

Examples
  keelctl update check
  keelctl update install && keelctl reboot
  keelctl update install 1.4.0
  keelctl update install --bundle /media/stick/keel-1.4.0.bundle
  keelctl update install --disk
",
    ),
    (
        "reboot",
        "keelctl reboot [--kexec | --firmware]

Stops containers and services in order, then restarts the machine: through its firmware, or as update.kexec in the
machine config says.
--kexec     starts the kernel of what boots next right away. Where that can't be done, it says why and goes through
            the firmware.
--firmware  goes through the firmware

Examples
  keelctl update install && keelctl reboot --kexec
",
    ),
    ("poweroff", "keelctl poweroff\n\nStops containers and services in order, then switches the machine off.\n"),
    (
        "ps",
        "keelctl ps [-a]

Lists the containers that run; with -a (--all) those that have ended, too.

Examples
  keelctl ps -a
",
    ),
    (
        "run",
        "keelctl run [-d] [--rm] [-p [IP:]HOST:CONTAINER[/udp]]... [--name NAME] [--restart POLICY] [-e K=V]... IMAGE [ARG...]

Runs a container; the image is pulled if the host doesn't have it. Its output is shown until it ends, and its exit
code is keelctl's.

  -d, --detach     don't wait, print its ID
  --rm             remove it when it has ended
  -p, --publish    make a port of the container one of the host
  --restart        no, always, unless-stopped, on-failure[:RETRIES]
  -e, --env        set a variable

What follows IMAGE is the container's own.

Examples
  keelctl run --rm alpine echo hello
  keelctl run -d --name web -p 80:80 --restart always nginx
",
    ),
    (
        "console",
        "keelctl console

The program on the host's consoles, started by PID 1: shows the host at a glance and takes the verbs of keelctl, with
or without the word keelctl. Quotes keep words together; there is no other syntax. Ctrl-C drops a line or stops a verb.
",
    ),
    ("version", "keelctl version\n\nShows the version of keelctl and of the release that the host runs.\n"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use keel_spec::api::ErrorCode;

    #[test]
    fn every_exit_code_is_explained() {
        for code in ErrorCode::ALL {
            let number = code.exit_code().to_string();
            assert!(EXIT_CODES.split_whitespace().any(|word| word == number), "{code:?}");
        }
    }

    #[test]
    fn every_verb_of_the_overview_has_a_topic() {
        for verb in
            ["status", "services", "logs", "boots", "update", "reboot", "poweroff", "ps", "run", "console", "version"]
        {
            assert!(OVERVIEW.contains(verb), "{verb}");
            assert!(text(Some(verb)).starts_with("keelctl "), "{verb}");
        }
    }
}
