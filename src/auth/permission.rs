//! Who may do what: one table, and every road asks it.
//!
//! [`may`] decides from a role, an action and its circumstances, which whoever asks has looked up. It knows of no road: a
//! WebSocket, a request with a cookie and one with a bearer's token get the same answer. The README shows the table, and
//! a test keeps the two the same.
//!
//! What goes by the clock (slow mode, rates) is not decided here; [`is_slowed`] says whom it is for.

use crate::role::{Accounts, Posting, Registration, Role};

/// Something that one may or may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Come into a room, and read what is its own: members, messages, search, files, events.
    Enter,
    /// Say something in a room, send a file there, be seen typing.
    Say,
    /// Write to one person.
    SayPrivately,
    /// React to a message.
    React,
    /// Change a message's text.
    Edit,
    /// Take a message back.
    Delete,
    /// Say something in every room.
    Announce,
    /// Set a room's name, topic, who may post, and slow mode.
    SetRoom,
    /// Make a room private, or public again.
    SetPrivate,
    /// Make an invitation to a private room, or take it back.
    InviteToRoom,
    /// Put somebody out of a room.
    Kick,
    /// Keep somebody from saying anything until a time; or no longer.
    Mute,
    /// Keep somebody out; or no longer.
    Ban,
    /// Make an invitation to register, or take it back.
    InviteToRegister,
    /// Make an account for oneself.
    Register,
    /// Change the password of one's account.
    ChangePassword,
    /// See where somebody is logged in.
    ListSessions,
    /// End a session.
    EndSession,
}

impl Action {
    /// Every one, in the order of the table.
    pub const ALL: [Self; 18] = [
        Self::Enter,
        Self::Say,
        Self::SayPrivately,
        Self::React,
        Self::Edit,
        Self::Delete,
        Self::Announce,
        Self::SetRoom,
        Self::SetPrivate,
        Self::InviteToRoom,
        Self::Kick,
        Self::Mute,
        Self::Ban,
        Self::InviteToRegister,
        Self::Register,
        Self::ChangePassword,
        Self::ListSessions,
        Self::EndSession,
    ];

    /// Whether it is done in a room, so that the room's circumstances count.
    #[must_use]
    pub fn is_in_room(self) -> bool {
        use Action::{Delete, Edit, Enter, InviteToRoom, Kick, React, Say, SayPrivately, SetPrivate, SetRoom};
        matches!(self, Enter | Say | SayPrivately | React | Edit | Delete | SetRoom | SetPrivate | InviteToRoom | Kick)
    }

    /// Whether others get to hear or see something new of it, which is what a mute keeps from them.
    #[must_use]
    pub fn is_speech(self) -> bool {
        matches!(self, Self::Say | Self::SayPrivately | Self::React | Self::Edit | Self::Announce)
    }
}

/// How somebody stands with the house at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Well.
    #[default]
    Good,
    /// Muted, and the time is not over.
    Muted,
    /// Banned: the account, the session, or for a guest the address.
    Banned,
}

/// What a room is to who acts. A conversation of two is private, with two members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Anybody may come in.
    #[default]
    Public,
    /// It is private, and they are a member.
    Member,
    /// It is private, and they are none.
    Stranger,
}

/// Whose the message or session is that is acted on, or who the person is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// That of who acts.
    Own,
    /// Another's, of this role.
    Others(Role),
}

/// What else counts. The default is a guest's first step into a public room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Circumstances {
    /// How who acts stands with the house.
    pub standing: Standing,
    /// What the room is to them, where there is a room.
    pub access: Access,
    /// Who may post in it.
    pub posting: Posting,
    /// Whose it is that is acted on, where that is something of somebody's.
    pub whose: Whose,
    /// Whether one must have an account.
    pub accounts: Accounts,
    /// How one comes to an account.
    pub registration: Registration,
    /// Whether an invitation to register was shown that is good.
    pub invited: bool,
}

impl Default for Circumstances {
    fn default() -> Self {
        Self {
            standing: Standing::default(),
            access: Access::default(),
            posting: Posting::default(),
            whose: Whose::Own,
            accounts: Accounts::default(),
            registration: Registration::default(),
            invited: false,
        }
    }
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Kept out.
    #[error("you are banned here")]
    Banned,
    /// Nobody is told of a private room, nor that there is one: the same as where there is none.
    #[error("there is no such room")]
    NoSuchRoom,
    /// Guests are not let in.
    #[error("one must be logged in here")]
    LogIn,
    /// Nothing that a guest has.
    #[error("that is for those who have an account")]
    NoAccount,
    /// Kept from speaking.
    #[error("you are muted")]
    Muted,
    /// The room is for reading.
    #[error("only admins post in this room")]
    ReadOnly,
    /// For admins.
    #[error("that is for admins")]
    NotAdmin,
    /// Another's own affair.
    #[error("that is not yours")]
    NotYours,
    /// Not to oneself.
    #[error("that can't be done to oneself")]
    Oneself,
    /// Admins keep no order among themselves: the operator takes the role away first.
    #[error("that can't be done to an admin")]
    Admin,
    /// There is no way to register, or not without an invitation.
    #[error("registration is closed, or by invitation")]
    Closed,
    /// Whoever is logged in has an account.
    #[error("you have an account")]
    Registered,
}

impl Refusal {
    /// Whether it is to be told as if what was asked for were not there.
    #[must_use]
    pub fn is_hidden(self) -> bool {
        self == Self::NoSuchRoom
    }

    /// Whether logging in could help.
    #[must_use]
    pub fn wants_login(self) -> bool {
        matches!(self, Self::LogIn | Self::NoAccount)
    }
}

/// Whether somebody of a role may do something in these circumstances.
///
/// # Errors
/// [`Refusal`]: the first reason, of those that may be told.
pub fn may(role: Role, action: Action, circumstances: &Circumstances) -> Result<(), Refusal> {
    use Action::*;
    let Circumstances { standing, access, posting, whose, accounts, registration, invited } = *circumstances;
    if standing == Standing::Banned {
        return Err(Refusal::Banned);
    }
    if role == Role::Guest && accounts == Accounts::Required && action != Register {
        return Err(Refusal::LogIn);
    }
    let admins = || if role == Role::Admin { Ok(()) } else { Err(Refusal::NotAdmin) };
    // The same of any room, or it would tell that one is there.
    if matches!(action, SetRoom | SetPrivate | InviteToRoom | Kick) {
        admins()?;
    }
    // Before anything that would tell that the room is there.
    if action.is_in_room() && access == Access::Stranger {
        return Err(Refusal::NoSuchRoom);
    }
    if standing == Standing::Muted && action.is_speech() {
        return Err(Refusal::Muted);
    }
    let own = || if whose == Whose::Own { Ok(()) } else { Err(Refusal::NotYours) };
    let posts = || if posting == Posting::Admins && role != Role::Admin { Err(Refusal::ReadOnly) } else { Ok(()) };
    match action {
        Enter | SayPrivately | React => Ok(()),
        Say => posts(),
        // What was said stays what it was where one may not say anything.
        Edit => own().and_then(|()| posts()),
        Delete => own().or_else(|refusal| admins().map_err(|_| refusal)),
        Announce | SetRoom | SetPrivate | InviteToRoom | InviteToRegister => admins(),
        Kick | Mute | Ban => admins().and(match whose {
            Whose::Own => Err(Refusal::Oneself),
            Whose::Others(Role::Admin) => Err(Refusal::Admin),
            Whose::Others(_) => Ok(()),
        }),
        Register => match (role, registration) {
            (Role::User | Role::Admin, _) => Err(Refusal::Registered),
            (Role::Guest, Registration::Open) => Ok(()),
            (Role::Guest, Registration::Invite) if invited => Ok(()),
            (Role::Guest, _) => Err(Refusal::Closed),
        },
        ChangePassword if role == Role::Guest => Err(Refusal::NoAccount),
        ChangePassword | ListSessions | EndSession => own(),
    }
}

/// Whether slow mode is for somebody of this role.
#[must_use]
pub fn is_slowed(role: Role) -> bool {
    role != Role::Admin
}

/// The table as the README shows it: what can be done by now, in which circumstances, and for each role whether.
#[must_use]
pub fn table() -> String {
    let mut text = String::from("| what | guest | user | admin |\n| --- | --- | --- | --- |\n");
    for (what, action, circumstances) in rows() {
        let cells = Role::ALL.iter().map(|role| match may(*role, action, &circumstances) {
            Ok(()) => "yes",
            Err(refusal) if refusal.is_hidden() => "no such room",
            Err(refusal) if refusal.wants_login() => "log in",
            Err(_) => "no",
        });
        let cells: Vec<_> = cells.collect();
        text += &format!("| {what} | {} |\n", cells.join(" | "));
    }
    text
}

fn rows() -> Vec<(&'static str, Action, Circumstances)> {
    use Action::*;
    let plain = Circumstances::default();
    let others = |role| Circumstances { whose: Whose::Others(role), ..plain };
    let read_only = Circumstances { posting: Posting::Admins, ..plain };
    let muted = Circumstances { standing: Standing::Muted, ..plain };
    let member = Circumstances { access: Access::Member, ..plain };
    let stranger = Circumstances { access: Access::Stranger, ..plain };
    let registration = |registration, invited| Circumstances { registration, invited, ..plain };
    vec![
        ("enter a room, read it, follow it, search it", Enter, plain),
        ("… where accounts are required", Enter, Circumstances { accounts: Accounts::Required, ..plain }),
        ("… that is private, as its member", Enter, member),
        ("… that is private, as anybody else", Enter, stranger),
        ("… while banned", Enter, Circumstances { standing: Standing::Banned, ..plain }),
        ("say something in a room", Say, plain),
        ("… where only admins post", Say, read_only),
        ("… while muted", Say, muted),
        ("take back a message of one’s own", Delete, plain),
        ("… of another’s", Delete, others(Role::User)),
        ("announce to all rooms", Announce, plain),
        ("set a room’s name, topic, who may post, slow mode", SetRoom, plain),
        ("make a room private or public", SetPrivate, plain),
        ("make or take back an invitation to a private room, as its member", InviteToRoom, member),
        ("… as anybody else", InviteToRoom, stranger),
        ("kick a guest or user out of a room", Kick, others(Role::User)),
        ("mute a guest or user", Mute, others(Role::User)),
        ("ban a guest or user", Ban, others(Role::User)),
        ("kick, mute or ban an admin", Ban, others(Role::Admin)),
        ("make or take back an invitation to register", InviteToRegister, plain),
        ("register, where registration is open", Register, registration(Registration::Open, false)),
        ("… by invitation, with one", Register, registration(Registration::Invite, true)),
        ("… by invitation, without", Register, registration(Registration::Invite, false)),
        ("… closed", Register, registration(Registration::Closed, true)),
        ("change one’s password", ChangePassword, plain),
        ("see and end one’s own sessions", EndSession, plain),
        ("see and end another’s", EndSession, others(Role::Guest)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Every circumstance there is.
    fn everything() -> Vec<Circumstances> {
        let mut all = Vec::new();
        let whose = Role::ALL.iter().map(|role| Whose::Others(*role)).chain([Whose::Own]);
        for whose in whose {
            for standing in [Standing::Good, Standing::Muted, Standing::Banned] {
                for access in [Access::Public, Access::Member, Access::Stranger] {
                    for posting in Posting::ALL {
                        for accounts in Accounts::ALL {
                            for registration in Registration::ALL {
                                for invited in [false, true] {
                                    all.push(Circumstances {
                                        standing,
                                        access,
                                        posting: *posting,
                                        whose,
                                        accounts: *accounts,
                                        registration: *registration,
                                        invited,
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
        all
    }

    /// What each role may do to begin with: in good standing, to what the letter says (own, a user's, an admin's), where
    /// everything is open. A hand-written copy of the table, in which `gua` are the roles that may.
    const WHO: [(Action, &str, &str, &str); 18] = [
        (Action::Enter, "gua", "gua", "gua"),
        (Action::Say, "gua", "gua", "gua"),
        (Action::SayPrivately, "gua", "gua", "gua"),
        (Action::React, "gua", "gua", "gua"),
        (Action::Edit, "gua", "", ""),
        (Action::Delete, "gua", "a", "a"),
        (Action::Announce, "a", "a", "a"),
        (Action::SetRoom, "a", "a", "a"),
        (Action::SetPrivate, "a", "a", "a"),
        (Action::InviteToRoom, "a", "a", "a"),
        (Action::Kick, "", "a", ""),
        (Action::Mute, "", "a", ""),
        (Action::Ban, "", "a", ""),
        (Action::InviteToRegister, "a", "a", "a"),
        (Action::Register, "g", "g", "g"),
        (Action::ChangePassword, "ua", "", ""),
        (Action::ListSessions, "gua", "", ""),
        (Action::EndSession, "gua", "", ""),
    ];

    /// What takes it away again, as a list of exceptions; written apart from [`may`] so that a slip in one is seen.
    fn expected(role: Role, action: Action, its: &Circumstances) -> bool {
        let letter = role.as_str().chars().next().unwrap();
        let (_, own, users, admins) = WHO.iter().find(|(of, ..)| *of == action).unwrap();
        let list = match its.whose {
            Whose::Own => own,
            Whose::Others(Role::Admin) => admins,
            Whose::Others(_) => users,
        };
        let name = format!("{action:?}");
        let in_room = "Enter Say SayPrivately React Edit Delete SetRoom SetPrivate InviteToRoom Kick";
        let is_of = |list: &str| list.split(' ').any(|one| one == name);
        let mut may = list.contains(letter);
        may &= its.standing != Standing::Banned;
        may &= !(its.standing == Standing::Muted && is_of("Say SayPrivately React Edit Announce"));
        may &= !(its.access == Access::Stranger && is_of(in_room));
        may &= !(its.posting == Posting::Admins && role != Role::Admin && is_of("Say Edit"));
        may &= !(its.accounts == Accounts::Required && role == Role::Guest && !is_of("Register"));
        let is_let_in = match its.registration {
            Registration::Open => true,
            Registration::Invite => its.invited,
            Registration::Closed => false,
        };
        may && (is_let_in || !is_of("Register"))
    }

    #[test]
    fn every_cell_is_as_it_is_meant() {
        let mut cells = 0;
        for its in everything() {
            for role in Role::ALL {
                for action in Action::ALL {
                    let answer = may(*role, action, &its);
                    assert_eq!(answer.is_ok(), expected(*role, action, &its), "{role} {action:?} {its:?}: {answer:?}");
                    cells += 1;
                }
            }
        }
        assert_eq!(cells, 3 * 18 * 4 * 3 * 3 * 2 * 2 * 3 * 2);
    }

    #[test]
    fn nobody_learns_of_a_private_room_from_a_refusal() {
        for its in everything().into_iter().filter(|its| its.standing != Standing::Banned) {
            for role in Role::ALL.iter().filter(|role| **role != Role::Guest || its.accounts == Accounts::Optional) {
                for action in Action::ALL.into_iter().filter(|action| action.is_in_room()) {
                    let answer = may(*role, action, &its);
                    if answer == Err(Refusal::NotAdmin) && action != Action::Delete {
                        let elsewhere = may(*role, action, &Circumstances { access: Access::Public, ..its });
                        assert_eq!(answer, elsewhere, "{role} {action:?} {its:?}: the same of any room");
                        continue;
                    }
                    let hidden = answer == Err(Refusal::NoSuchRoom);
                    assert_eq!(hidden, its.access == Access::Stranger, "{role} {action:?} {its:?}");
                }
            }
        }
    }

    #[test]
    fn the_reason_is_the_one_that_helps() {
        use Refusal::*;
        let plain = Circumstances::default();
        let others = |role| Circumstances { whose: Whose::Others(role), ..plain };
        for (role, action, its, reason) in [
            (Role::Guest, Action::Enter, Circumstances { accounts: Accounts::Required, ..plain }, LogIn),
            (Role::Guest, Action::Say, Circumstances { standing: Standing::Banned, ..plain }, Banned),
            (Role::User, Action::Say, Circumstances { standing: Standing::Muted, ..plain }, Muted),
            (Role::User, Action::Say, Circumstances { posting: Posting::Admins, ..plain }, ReadOnly),
            (Role::User, Action::Edit, others(Role::Guest), NotYours),
            (Role::User, Action::Delete, others(Role::Guest), NotYours),
            (Role::User, Action::Kick, others(Role::Guest), NotAdmin),
            (Role::Admin, Action::Kick, plain, Oneself),
            (Role::Admin, Action::Ban, others(Role::Admin), Admin),
            (Role::Guest, Action::ChangePassword, plain, NoAccount),
            (Role::Guest, Action::Register, plain, Closed),
            (Role::User, Action::Register, plain, Registered),
        ] {
            assert_eq!(may(role, action, &its), Err(reason), "{role} {action:?}");
        }
    }

    #[test]
    fn the_readme_shows_the_table() {
        let readme = include_str!("../../README.md");
        let (_, section) = readme.split_once("## Who may do what\n").expect("the README has the section");
        let shown: String =
            section.lines().skip_while(|line| !line.starts_with('|')).fold(String::new(), |all, line| {
                let ended = all.ends_with("\n\n");
                if ended {
                    all
                } else if line.starts_with('|') {
                    all + line + "\n"
                } else {
                    all + "\n\n"
                }
            });
        assert_eq!(shown.trim_end(), table().trim_end(), "the README should say:\n{}", table());
    }

    #[test]
    fn the_table_has_a_row_for_every_action_and_every_circumstance() {
        let rows = rows();
        let twin = |action| match action {
            Action::ListSessions => Action::EndSession,
            action => action,
        };
        // What nobody can do yet on any road is decided, and not shown.
        let not_yet = [Action::SayPrivately, Action::React, Action::Edit];
        assert!(!rows.iter().any(|(_, of, _)| not_yet.contains(of)));
        for action in Action::ALL.into_iter().filter(|action| !not_yet.contains(action)) {
            assert!(rows.iter().any(|(_, of, _)| *of == twin(action)), "{action:?}");
        }
        // What stands together in one row is the same for all that it names.
        for its in everything() {
            for role in Role::ALL {
                assert_eq!(may(*role, Action::ListSessions, &its), may(*role, Action::EndSession, &its));
                assert_eq!(may(*role, Action::Mute, &its), may(*role, Action::Ban, &its));
                let guests = Circumstances { whose: Whose::Others(Role::Guest), ..its };
                let users = Circumstances { whose: Whose::Others(Role::User), ..its };
                for action in Action::ALL {
                    assert_eq!(may(*role, action, &guests), may(*role, action, &users), "{action:?}");
                }
            }
        }
        let mut said = HashMap::new();
        for (what, action, its) in rows {
            assert_eq!(said.insert((action, its), what), None, "{what} stands twice");
        }
    }

    #[test]
    fn slow_mode_is_not_for_admins() {
        assert_eq!(Role::ALL.iter().map(|role| is_slowed(*role)).collect::<Vec<_>>(), [true, true, false]);
    }
}
