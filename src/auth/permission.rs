//! Permissions: one table for all protocols.
//!
//! [`may`] decides from a role, an action and a context, which the caller has looked up. It knows no protocol: a
//! WebSocket, a request with a cookie and one with a bearer token get the same answer. The reference shows the table, and
//! a test keeps the two the same.
//!
//! Slow mode and rates depend on the time and are not decided here; [`is_slowed`] says which roles slow mode is for.

use crate::model::reason::Reason;
use crate::model::role::{Accounts, Posting, Registration, Role};

/// Something that a user may or may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Enter a room, and read its members, messages, search results, files and events.
    Enter,
    /// Become a member of a private room without an invitation, by joining it.
    AdmitSelf,
    /// Send a message or a file to a room, or be seen typing there.
    Post,
    /// Send a private message.
    PostPrivately,
    /// React to a message.
    React,
    /// Edit a message.
    Edit,
    /// Delete a message.
    Delete,
    /// Send a message to every room.
    Announce,
    /// Set a room's name, topic, posting rule and slow mode.
    SetRoom,
    /// Make a room private, or public again.
    SetPrivate,
    /// Delete a room with all its messages.
    DeleteRoom,
    /// Create or revoke an invitation to a private room.
    InviteToRoom,
    /// Remove a user from a room.
    Kick,
    /// Stop a user from sending until a time, or end that.
    Mute,
    /// Stop a user from entering any room, or end that.
    Ban,
    /// Create or revoke an invitation to register.
    InviteToRegister,
    ReadAudit,
    /// Create an account for the acting user.
    Register,
    /// Change the password of the acting user's account.
    ChangePassword,
    /// List the sessions of a user.
    ListSessions,
    EndSession,
}

impl Action {
    /// Whether the action concerns one room, so that the room's settings decide.
    #[must_use]
    pub fn is_in_room(self) -> bool {
        use Action::{AdmitSelf, Delete, DeleteRoom, Edit, Enter, InviteToRoom, Kick};
        use Action::{Post, PostPrivately, React, SetPrivate, SetRoom};
        let is_of_message = matches!(self, Enter | Post | PostPrivately | React | Edit | Delete);
        is_of_message || matches!(self, AdmitSelf | SetRoom | SetPrivate | DeleteRoom | InviteToRoom | Kick)
    }

    /// Whether other users see something new from the action. A mute forbids these actions.
    #[must_use]
    pub fn is_speech(self) -> bool {
        matches!(self, Self::Post | Self::PostPrivately | Self::React | Self::Edit | Self::Announce)
    }
}

/// Whether the user is muted or banned at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Restriction {
    /// Neither muted nor banned.
    #[default]
    None,
    /// Muted until a time that is not over.
    Muted,
    /// Banned by user id, or for a guest by address.
    Banned,
}

/// How a room is open to the user. A conversation of two is private, with two members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Every user may enter.
    #[default]
    Public,
    /// The room is private, and the user is a member.
    Member,
    /// The room is private, and the user is not a member.
    NonMember,
    /// The room is private, and has no members.
    Abandoned,
}

/// The owner of the message or session that the action is about, or the user that it is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Target {
    /// The user that acts.
    #[default]
    Own,
    /// Another user, of this role.
    Others(Role),
}

/// The code that a client shows in order to register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RegistrationCode {
    /// No code, or an unknown one.
    #[default]
    None,
    /// The code of a valid invitation to register.
    Invitation,
    /// The code of the valid setup link. The account becomes the first admin.
    Setup,
    /// The code of a setup link that was used or has expired.
    SpentSetup,
}

/// What decides besides the role and the action. The default is the context of a guest that enters a public room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PermissionContext {
    /// Of the user that acts.
    pub restriction: Restriction,
    /// Public for an action that concerns no room.
    pub access: Access,
    /// The posting rule of the room.
    pub posting: Posting,
    /// [`Target::Own`] for an action that is about no user.
    pub target: Target,
    /// Whether guests are admitted.
    pub accounts: Accounts,
    /// How registration is open.
    pub registration: Registration,
    /// The code that the user shows in order to register.
    pub code: RegistrationCode,
}

/// Whether a user of a role may do something in this context.
///
/// # Errors
/// The first [`Reason`] against it that the user may know.
pub fn may(role: Role, action: Action, context: &PermissionContext) -> Result<(), Reason> {
    use Action::*;
    let PermissionContext { restriction, access, posting, target, accounts, registration, code } = *context;
    if restriction == Restriction::Banned {
        return Err(Reason::Banned);
    }
    if role == Role::Guest && accounts == Accounts::Required && action != Register {
        return Err(Reason::LoginRequired);
    }
    let admins = || if role == Role::Admin { Ok(()) } else { Err(Reason::NotAdmin) };
    // The same answer for every room, so that it does not tell whether the room exists.
    if matches!(action, SetRoom | SetPrivate | DeleteRoom | InviteToRoom | Kick) {
        admins()?;
    }
    // Before every check whose answer would tell that the room exists. Admins know that it does.
    let is_closed = match access {
        Access::Public | Access::Member => false,
        Access::NonMember => action != AdmitSelf,
        // An admin can make it public. Otherwise it would be lost.
        Access::Abandoned => !matches!(action, AdmitSelf | SetPrivate),
    };
    if action.is_in_room() && is_closed {
        return Err(if role == Role::Admin { Reason::NotMember } else { Reason::NoSuchRoom });
    }
    if restriction == Restriction::Muted && action.is_speech() {
        return Err(Reason::Muted);
    }
    let own = || if target == Target::Own { Ok(()) } else { Err(Reason::NotYours) };
    let posts = || if posting == Posting::Admins && role != Role::Admin { Err(Reason::ReadOnly) } else { Ok(()) };
    match action {
        Enter | PostPrivately | React => Ok(()),
        AdmitSelf => admins().map_err(|_| Reason::NoSuchRoom),
        Post => posts(),
        // An edit is a way to post, so a room that takes no posts takes no edits.
        Edit => own().and_then(|()| posts()),
        Delete => own().or_else(|refusal| admins().map_err(|_| refusal)),
        Announce | SetRoom | SetPrivate | DeleteRoom | InviteToRoom | InviteToRegister | ReadAudit => admins(),
        Kick | Mute | Ban => admins().and(match target {
            Target::Own => Err(Reason::TargetIsSelf),
            Target::Others(Role::Admin) => Err(Reason::TargetIsAdmin),
            Target::Others(_) => Ok(()),
        }),
        Register if role != Role::Guest => Err(Reason::AlreadyRegistered),
        Register => match (code, registration) {
            (RegistrationCode::Setup, _) => Ok(()),
            (RegistrationCode::SpentSetup, _) => Err(Reason::NoSuchInvitation),
            (_, Registration::Open) | (RegistrationCode::Invitation, Registration::Invite) => Ok(()),
            _ => Err(Reason::RegistrationClosed),
        },
        ChangePassword if role == Role::Guest => Err(Reason::AccountRequired),
        ChangePassword | ListSessions | EndSession => own(),
    }
}

/// Whether slow mode is for users of this role.
#[must_use]
pub fn is_slowed(role: Role) -> bool {
    role != Role::Admin
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    impl Action {
        /// All actions, in the order of the table.
        const ALL: [Self; 21] = [
            Self::Enter,
            Self::AdmitSelf,
            Self::Post,
            Self::PostPrivately,
            Self::React,
            Self::Edit,
            Self::Delete,
            Self::Announce,
            Self::SetRoom,
            Self::SetPrivate,
            Self::DeleteRoom,
            Self::InviteToRoom,
            Self::Kick,
            Self::Mute,
            Self::Ban,
            Self::InviteToRegister,
            Self::ReadAudit,
            Self::Register,
            Self::ChangePassword,
            Self::ListSessions,
            Self::EndSession,
        ];
    }

    /// The table as the reference shows it: each action in its contexts, and whether each role may do it. Actions that no
    /// protocol offers yet are left out.
    fn table() -> String {
        let mut text = String::from("| action | guest | user | admin |\n| --- | --- | --- | --- |\n");
        for (what, action, context) in rows() {
            let cells = Role::ALL.iter().map(|role| match may(*role, action, &context) {
                Ok(()) => "yes",
                Err(refusal) if refusal.is_hidden() => "no such room",
                Err(Reason::LoginRequired | Reason::AccountRequired) => "login required",
                Err(_) => "no",
            });
            let cells: Vec<_> = cells.collect();
            text += &format!("| {what} | {} |\n", cells.join(" | "));
        }
        text
    }

    fn rows() -> Vec<(&'static str, Action, PermissionContext)> {
        use Action::*;
        let plain = PermissionContext::default();
        let others = |role| PermissionContext { target: Target::Others(role), ..plain };
        let read_only = PermissionContext { posting: Posting::Admins, ..plain };
        let muted = PermissionContext { restriction: Restriction::Muted, ..plain };
        let member = PermissionContext { access: Access::Member, ..plain };
        let stranger = PermissionContext { access: Access::NonMember, ..plain };
        let registration = |registration, code| PermissionContext { registration, code, ..plain };
        let (no_code, invitation) = (RegistrationCode::None, RegistrationCode::Invitation);
        vec![
            ("enter, read, follow and search a room", Enter, plain),
            ("… if accounts are required", Enter, PermissionContext { accounts: Accounts::Required, ..plain }),
            ("… that is private, as a member", Enter, member),
            ("… that is private, as a non-member", Enter, stranger),
            ("become a member of a private room by joining it, which its members see", AdmitSelf, stranger),
            ("… while banned", Enter, PermissionContext { restriction: Restriction::Banned, ..plain }),
            ("post in a room", Post, plain),
            ("… if only admins can post", Post, read_only),
            ("… while muted", Post, muted),
            ("delete own message", Delete, plain),
            ("delete another user’s message", Delete, others(Role::User)),
            ("announce to all rooms", Announce, plain),
            ("change a room’s name, topic, posting rule and slow mode", SetRoom, plain),
            ("make a room private or public", SetPrivate, plain),
            (
                "… that is private and has no members",
                SetPrivate,
                PermissionContext { access: Access::Abandoned, ..plain },
            ),
            ("delete a room with all its messages", DeleteRoom, plain),
            ("create or revoke an invitation to a private room, as a member", InviteToRoom, member),
            ("… as a non-member", InviteToRoom, stranger),
            ("kick a guest or user from a room", Kick, others(Role::User)),
            ("mute a guest or user", Mute, others(Role::User)),
            ("ban a guest or user", Ban, others(Role::User)),
            ("kick, mute or ban an admin", Ban, others(Role::Admin)),
            ("create or revoke an invitation to register", InviteToRegister, plain),
            ("read the audit log", ReadAudit, plain),
            ("register, if registration is open", Register, registration(Registration::Open, no_code)),
            (
                "… if registration needs an invitation, with one",
                Register,
                registration(Registration::Invite, invitation),
            ),
            (
                "… if registration needs an invitation, without one",
                Register,
                registration(Registration::Invite, no_code),
            ),
            ("… if registration is closed", Register, registration(Registration::Closed, invitation)),
            (
                "… with a setup link, while there is no admin",
                Register,
                registration(Registration::Closed, RegistrationCode::Setup),
            ),
            (
                "… with a setup link that is used or expired",
                Register,
                registration(Registration::Open, RegistrationCode::SpentSetup),
            ),
            ("change own password", ChangePassword, plain),
            ("list and end own sessions", EndSession, plain),
            ("list and end another user’s sessions", EndSession, others(Role::Guest)),
        ]
    }

    const CODES: [RegistrationCode; 4] =
        [RegistrationCode::None, RegistrationCode::Invitation, RegistrationCode::Setup, RegistrationCode::SpentSetup];

    /// Every combination of the fields of a context.
    fn contexts() -> Vec<PermissionContext> {
        let mut all = Vec::new();
        let target = Role::ALL.iter().map(|role| Target::Others(*role)).chain([Target::Own]);
        for target in target {
            for restriction in [Restriction::None, Restriction::Muted, Restriction::Banned] {
                for access in [Access::Public, Access::Member, Access::NonMember, Access::Abandoned] {
                    for posting in Posting::ALL {
                        for accounts in Accounts::ALL {
                            for registration in Registration::ALL {
                                for code in CODES {
                                    all.push(PermissionContext {
                                        restriction,
                                        access,
                                        posting: *posting,
                                        target,
                                        accounts: *accounts,
                                        registration: *registration,
                                        code,
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

    /// What each role may do without restrictions, in a public room, with open registration. The columns list the roles
    /// that may act on their own objects, on those of guests and users, and on those of admins. A handwritten copy of
    /// the table.
    const ROLES: [(Action, &str, &str, &str); 21] = [
        (Action::Enter, "gua", "gua", "gua"),
        (Action::AdmitSelf, "a", "a", "a"),
        (Action::Post, "gua", "gua", "gua"),
        (Action::PostPrivately, "gua", "gua", "gua"),
        (Action::React, "gua", "gua", "gua"),
        (Action::Edit, "gua", "", ""),
        (Action::Delete, "gua", "a", "a"),
        (Action::Announce, "a", "a", "a"),
        (Action::SetRoom, "a", "a", "a"),
        (Action::SetPrivate, "a", "a", "a"),
        (Action::DeleteRoom, "a", "a", "a"),
        (Action::InviteToRoom, "a", "a", "a"),
        (Action::Kick, "", "a", ""),
        (Action::Mute, "", "a", ""),
        (Action::Ban, "", "a", ""),
        (Action::InviteToRegister, "a", "a", "a"),
        (Action::ReadAudit, "a", "a", "a"),
        (Action::Register, "g", "g", "g"),
        (Action::ChangePassword, "ua", "", ""),
        (Action::ListSessions, "gua", "", ""),
        (Action::EndSession, "gua", "", ""),
    ];

    /// The same with all exceptions. It is not derived from [`may`], so that a mistake in either is found.
    fn expected(role: Role, action: Action, context: &PermissionContext) -> bool {
        let letter = role.as_str().chars().next().unwrap();
        let (_, own, users, admins) = ROLES.iter().find(|(of, ..)| *of == action).unwrap();
        let list = match context.target {
            Target::Own => own,
            Target::Others(Role::Admin) => admins,
            Target::Others(_) => users,
        };
        let name = format!("{action:?}");
        let in_room = "Enter Post PostPrivately React Edit Delete SetRoom SetPrivate DeleteRoom InviteToRoom Kick";
        let is_of = |list: &str| list.split(' ').any(|one| one == name);
        let mut may = list.contains(letter);
        may &= context.restriction != Restriction::Banned;
        may &= !(context.restriction == Restriction::Muted && is_of("Post PostPrivately React Edit Announce"));
        may &= !(context.access == Access::NonMember && is_of(in_room));
        may &= !(context.access == Access::Abandoned && is_of(in_room) && !is_of("SetPrivate AdmitSelf"));
        may &= !(context.posting == Posting::Admins && role != Role::Admin && is_of("Post Edit"));
        may &= !(context.accounts == Accounts::Required && role == Role::Guest && !is_of("Register"));
        let is_let_in = match context.registration {
            _ if context.code == RegistrationCode::Setup => true,
            Registration::Open => context.code != RegistrationCode::SpentSetup,
            Registration::Invite => context.code == RegistrationCode::Invitation,
            Registration::Closed => false,
        };
        may && (is_let_in || !is_of("Register"))
    }

    #[test]
    fn every_decision_equals_the_handwritten_table() {
        let mut cells = 0;
        for context in contexts() {
            for role in Role::ALL {
                for action in Action::ALL {
                    let answer = may(*role, action, &context);
                    assert_eq!(
                        answer.is_ok(),
                        expected(*role, action, &context),
                        "{role} {action:?} {context:?}: {answer:?}"
                    );
                    cells += 1;
                }
            }
        }
        assert_eq!(cells, 3 * 21 * 4 * 3 * 4 * 2 * 2 * 3 * 4);
    }

    #[test]
    fn no_refusal_reveals_a_private_room() {
        for context in contexts().into_iter().filter(|context| context.restriction != Restriction::Banned) {
            for role in Role::ALL.iter().filter(|role| **role != Role::Guest || context.accounts == Accounts::Optional)
            {
                for action in Action::ALL.into_iter().filter(|action| action.is_in_room()) {
                    let answer = may(*role, action, &context);
                    if answer == Err(Reason::NotAdmin) && action != Action::Delete {
                        let elsewhere = may(*role, action, &PermissionContext { access: Access::Public, ..context });
                        assert_eq!(answer, elsewhere, "{role} {action:?} {context:?}: it differs by room");
                        continue;
                    }
                    let is_closed = match context.access {
                        Access::Public | Access::Member => false,
                        Access::NonMember => action != Action::AdmitSelf,
                        Access::Abandoned => !matches!(action, Action::AdmitSelf | Action::SetPrivate),
                    };
                    let (is_admin, hidden) = (*role == Role::Admin, answer == Err(Reason::NoSuchRoom));
                    let is_hidden = !is_admin && (is_closed || action == Action::AdmitSelf);
                    assert_eq!(hidden, is_hidden, "{role} {action:?} {context:?}");
                    assert_eq!(answer == Err(Reason::NotMember), is_admin && is_closed, "{action:?} {context:?}");
                }
            }
        }
    }

    #[test]
    fn the_first_reason_is_the_most_useful_one() {
        use Reason::*;
        let plain = PermissionContext::default();
        let others = |role| PermissionContext { target: Target::Others(role), ..plain };
        let spent = PermissionContext { code: RegistrationCode::SpentSetup, ..plain };
        for (role, action, context, reason) in [
            (Role::Guest, Action::Enter, PermissionContext { accounts: Accounts::Required, ..plain }, LoginRequired),
            (Role::Guest, Action::Post, PermissionContext { restriction: Restriction::Banned, ..plain }, Banned),
            (Role::User, Action::Post, PermissionContext { restriction: Restriction::Muted, ..plain }, Muted),
            (Role::User, Action::Post, PermissionContext { posting: Posting::Admins, ..plain }, ReadOnly),
            (Role::User, Action::Edit, others(Role::Guest), NotYours),
            (Role::User, Action::Delete, others(Role::Guest), NotYours),
            (Role::User, Action::Kick, others(Role::Guest), NotAdmin),
            (Role::Admin, Action::Kick, plain, TargetIsSelf),
            (Role::Admin, Action::Ban, others(Role::Admin), TargetIsAdmin),
            (Role::Guest, Action::ChangePassword, plain, AccountRequired),
            (Role::Guest, Action::Register, plain, RegistrationClosed),
            (Role::User, Action::Register, plain, AlreadyRegistered),
            (Role::Guest, Action::Register, spent, NoSuchInvitation),
            (Role::User, Action::Register, spent, AlreadyRegistered),
        ] {
            assert_eq!(may(role, action, &context), Err(reason), "{role} {action:?}");
        }
    }

    #[test]
    fn the_reference_shows_the_table() {
        let page = include_str!("../../static/docs/permissions.md");
        let (_, section) = page.split_once("## Who may do what\n").expect("the page has the section");
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
        assert_eq!(shown.trim_end(), table().trim_end(), "static/docs/permissions.md should say:\n{}", table());
    }

    #[test]
    fn the_table_has_a_row_for_every_action_and_context() {
        let rows = rows();
        let twin = |action| match action {
            Action::ListSessions => Action::EndSession,
            action => action,
        };
        // Actions that no protocol offers yet are decided, and not shown.
        let not_yet = [Action::PostPrivately, Action::React, Action::Edit];
        assert!(!rows.iter().any(|(_, of, _)| not_yet.contains(of)));
        for action in Action::ALL.into_iter().filter(|action| !not_yet.contains(action)) {
            assert!(rows.iter().any(|(_, of, _)| *of == twin(action)), "{action:?}");
        }
        // A row that names several actions or roles is the same for all of them.
        for context in contexts() {
            for role in Role::ALL {
                assert_eq!(may(*role, Action::ListSessions, &context), may(*role, Action::EndSession, &context));
                assert_eq!(may(*role, Action::Mute, &context), may(*role, Action::Ban, &context));
                let guests = PermissionContext { target: Target::Others(Role::Guest), ..context };
                let users = PermissionContext { target: Target::Others(Role::User), ..context };
                for action in Action::ALL {
                    assert_eq!(may(*role, action, &guests), may(*role, action, &users), "{action:?}");
                }
            }
        }
        let mut said = HashMap::new();
        for (what, action, context) in rows {
            assert_eq!(said.insert((action, context), what), None, "two rows for {what}");
        }
    }

    #[test]
    fn slow_mode_is_not_for_admins() {
        assert_eq!(Role::ALL.iter().map(|role| is_slowed(*role)).collect::<Vec<_>>(), [true, true, false]);
    }
}
