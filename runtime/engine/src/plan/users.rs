//! Users and groups from the image's own `/etc/passwd` and `/etc/group`, whose bytes are not to be trusted: lines that
//! don't parse are passed over.

use keel_oci::spec::User;

use super::bad;
use crate::error::Error;

/// Longest file that is read, bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Most supplementary groups (the kernel's `NGROUPS_MAX` is 65536; nobody has more than this).
const MAX_GROUPS: usize = 1024;

/// A user as found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// For the OCI configuration.
    pub user: User,
    /// Home folder.
    pub home: String,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Looks `wanted` up: empty, `user`, `uid`, `user:group`, `uid:gid`; `further` are groups beside.
pub fn find(wanted: &str, further: &[String], passwd: &[u8], group: &[u8]) -> Result<Found, Error> {
    let (who, group_word) = match wanted.split_once(':') {
        Some((who, group_word)) => (who, Some(group_word).filter(|word| !word.is_empty())),
        None => (wanted, None),
    };
    let who = if who.is_empty() { "0" } else { who };
    let number = who.parse::<u32>().ok();
    let entry = users(passwd).find(|entry| entry.name == who || number == Some(entry.uid));
    let mut user = User::default();
    match (&entry, number) {
        (Some(entry), _) => (user.uid, user.gid) = (entry.uid, entry.gid),
        (None, Some(uid)) => user.uid = uid,
        (None, None) => return bad(format!("unable to find user {who}: no matching entries in passwd file")),
    }
    if let Some(word) = group_word {
        user.gid = group_id(word, group)?;
    } else if let Some(entry) = &entry {
        let member = |members: &str| members.split(',').any(|member| member == entry.name);
        user.additional_gids = groups(group).filter(|(_, _, members)| member(members)).map(|(_, gid, _)| gid).collect();
    }
    for word in further {
        user.additional_gids.push(group_id(word, group)?);
    }
    user.additional_gids.sort_unstable();
    user.additional_gids.dedup();
    user.additional_gids.truncate(MAX_GROUPS);
    let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/')).unwrap_or("/").into();
    Ok(Found { user, home })
}

fn group_id(word: &str, group: &[u8]) -> Result<u32, Error> {
    if let Some((_, gid, _)) = groups(group).find(|(name, _, _)| *name == word) {
        return Ok(gid);
    }
    word.parse().or_else(|_| bad(format!("unable to find group {word}: no matching entries in group file")))
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

fn users(passwd: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(1).unwrap_or("/");
        Some(Entry { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = (&str, u32, &str)> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\xff:bad\nweb:x:33:33:w:/srv:/bin/false\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:33:\nlog:x:40:web,x\n::::\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let web = find("web", &[], PASSWD, GROUP).unwrap();
        assert_eq!((web.user.uid, web.user.gid, &*web.home), (33, 33, "/srv"));
        assert_eq!(web.user.additional_gids, [40]);
        assert_eq!(find("33", &[], PASSWD, GROUP).unwrap(), web);
        assert_eq!(find("", &[], PASSWD, GROUP).unwrap().home, "/root");
    }

    #[test]
    fn numbers_need_no_entry_and_names_do() {
        let found = find("1000:2000", &["log".into()], b"", GROUP).unwrap();
        assert_eq!((found.user.uid, found.user.gid, found.user.additional_gids), (1000, 2000, vec![40]));
        assert!(find("nobody", &[], PASSWD, GROUP).unwrap_err().to_string().contains("unable to find user nobody"));
        assert!(find("web:none", &[], PASSWD, GROUP).is_err());
        assert!(find("-1", &[], PASSWD, GROUP).is_err());
    }
}
