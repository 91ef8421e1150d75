//! Users and groups as docker reads them: from the image's own passwd and group files, never from any service.

use std::collections::HashSet;
use thiserror::Error;

pub const PASSWD: &str = "/etc/passwd";
pub const GROUP: &str = "/etc/group";

/// Reads at most this much of either file.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_LINES: usize = 65_536;

#[derive(Debug, PartialEq)]
pub struct Identity {
    pub user: u32,
    pub group: u32,
    /// Supplementary groups, the user's main one first.
    pub groups: Vec<u32>,
    pub home: String,
}

#[derive(Debug, Error, PartialEq)]
pub enum UserError {
    #[error("unable to find user {}: no matching entries in passwd file", .0.escape_debug())]
    UnknownUser(String),
    #[error("unable to find group {}: no matching entries in group file", .0.escape_debug())]
    UnknownGroup(String),
}

struct User<'a> {
    name: &'a str,
    id: u32,
    group: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    id: u32,
    members: &'a str,
}

/// Lines that are not entries are skipped, as libc does.
fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().take(MAX_LINES).filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("");
        Some(User {
            name,
            id,
            group,
            home,
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().take(MAX_LINES).filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or("");
        Some(Group { name, id, members })
    })
}

/// Ids are numbers that fit a signed 32-bit integer, as docker's grammar has it.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse::<u32>().ok())?
        .filter(|id| i32::try_from(*id).is_ok())
}

/// Reads "", "user", "uid", "user:group", "uid:gid" and mixes. Digits are an id; an unknown id is used as it is, with
/// group 0 and home "/". `additional` are more groups, by name or number.
pub fn resolve(
    spec: &str,
    additional: &[String],
    passwd: &str,
    group: &str,
) -> Result<Identity, UserError> {
    let (user_part, group_part) = spec.split_once(':').unwrap_or((spec, ""));
    let user_part = if user_part.is_empty() { "0" } else { user_part };
    let id = number(user_part);
    let entry = users(passwd).find(|user| match id {
        Some(id) => user.id == id,
        None => user.name == user_part,
    });
    let mut identity = match (&entry, id) {
        (Some(user), _) => Identity {
            user: user.id,
            group: user.group,
            groups: Vec::new(),
            home: user.home.to_owned(),
        },
        (None, Some(id)) => Identity {
            user: id,
            group: 0,
            groups: Vec::new(),
            home: String::new(),
        },
        (None, None) => return Err(UserError::UnknownUser(user_part.to_owned())),
    };
    if identity.home.is_empty() {
        identity.home = "/".to_owned();
    }
    if !group_part.is_empty() {
        identity.group = number(group_part)
            .or_else(|| named_group(group_part, group))
            .ok_or_else(|| UserError::UnknownGroup(group_part.to_owned()))?;
    } else if let Some(user) = entry {
        identity.groups = groups(group)
            .filter(|group| {
                group
                    .members
                    .split(',')
                    .any(|member| member.trim() == user.name)
            })
            .map(|group| group.id)
            .collect();
    }
    for wanted in additional {
        // Here docker looks for a name first.
        let id = named_group(wanted, group)
            .or_else(|| number(wanted))
            .ok_or_else(|| UserError::UnknownGroup(wanted.to_owned()))?;
        identity.groups.push(id);
    }
    identity.groups.insert(0, identity.group);
    let mut seen = HashSet::new();
    identity.groups.retain(|id| seen.insert(*id));
    Ok(identity)
}

fn named_group(name: &str, group: &str) -> Option<u32> {
    groups(group)
        .find(|group| group.name == name)
        .map(|group| group.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# odd\n\nbad:x:notanumber:1::/:\n\
        www:x:33:34:www:/var/www:/bin/sh\n1000:x:77:78::/seven:\nhomeless:x:44:45:::\n";
    const GROUP: &str = "root:x:0:root\nwww-data:x:34:\naudio:x:29:www,other\nvideo:x:30:www\nx\n";

    fn identity(spec: &str) -> Result<(u32, u32, Vec<u32>, String), UserError> {
        resolve(spec, &[], PASSWD, GROUP).map(|it| (it.user, it.group, it.groups, it.home))
    }

    #[test]
    fn the_grammar_of_docker() {
        let root = (0, 0, vec![0], "/root".to_owned());
        assert_eq!(identity(""), Ok(root.clone()));
        assert_eq!(identity("root"), Ok(root.clone()));
        assert_eq!(identity("0"), Ok(root));
        assert_eq!(
            identity("www"),
            Ok((33, 34, vec![34, 29, 30], "/var/www".into()))
        );
        assert_eq!(
            identity("33"),
            Ok((33, 34, vec![34, 29, 30], "/var/www".into()))
        );
        assert_eq!(
            identity("www:audio"),
            Ok((33, 29, vec![29], "/var/www".into()))
        );
        assert_eq!(
            identity("www:4242"),
            Ok((33, 4242, vec![4242], "/var/www".into()))
        );
        assert_eq!(identity("555"), Ok((555, 0, vec![0], "/".into())));
        assert_eq!(identity("555:666"), Ok((555, 666, vec![666], "/".into())));
        assert_eq!(identity(":audio"), Ok((0, 29, vec![29], "/root".into())));
        assert_eq!(identity("homeless"), Ok((44, 45, vec![45], "/".into())));
        // A user of that name exists, but digits count as an id.
        assert_eq!(identity("1000"), Ok((1000, 0, vec![0], "/".into())));
    }

    #[test]
    fn more_groups_are_added_by_name_and_number() {
        let add = |spec: &str, more: &[&str]| {
            let more: Vec<String> = more.iter().map(|it| (*it).to_owned()).collect();
            resolve(spec, &more, PASSWD, GROUP).map(|it| it.groups)
        };
        assert_eq!(
            add("www", &["audio", "777", "34"]),
            Ok(vec![34, 29, 30, 777])
        );
        assert_eq!(add("www:www-data", &["video"]), Ok(vec![34, 30]));
        assert_eq!(
            add("", &["nogroup"]),
            Err(UserError::UnknownGroup("nogroup".into()))
        );
    }

    #[test]
    fn unknown_names_and_numbers_out_of_range_are_errors() {
        assert_eq!(
            identity("nobody"),
            Err(UserError::UnknownUser("nobody".into()))
        );
        assert_eq!(
            identity("www:nogroup"),
            Err(UserError::UnknownGroup("nogroup".into()))
        );
        assert!(identity("4294967296").is_err());
        assert!(identity("4294967295").is_err());
        assert!(identity("-1").is_err());
        assert!(identity("bad").is_err());
    }

    #[test]
    fn images_without_the_files_still_have_root() {
        let found = resolve("", &[], "", "").expect("root");
        assert_eq!((found.user, found.group, found.home.as_str()), (0, 0, "/"));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(spec in ".{0,40}", passwd in "(.{0,20}[:\n]){0,30}", group in "(.{0,20}[:\n]){0,30}") {
            let _ = resolve(&spec, std::slice::from_ref(&group), &passwd, &group);
        }

        #[test]
        fn numbers_stay_numbers(user in 0_u32..=i32::MAX as u32, group in 0_u32..=i32::MAX as u32) {
            let found = resolve(&format!("{user}:{group}"), &[], "", "").expect("numbers");
            prop_assert_eq!((found.user, found.group), (user, group));
        }
    }
}
