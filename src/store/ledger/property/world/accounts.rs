//! Entries that change accounts, sessions and flags.

use super::*;
use crate::limits::SETUP_SPAN_MS;

impl World {
    pub(super) fn account_ref(&mut self) -> Option<AccountRef> {
        let account = self.random.of(&self.accounts)?;
        let (id, name) = (account.id, account.name.clone());
        Some(if self.random.once_in(2) { AccountRef::Id(id) } else { AccountRef::Name(name) })
    }

    pub(super) fn password(&mut self) -> PasswordHash {
        PasswordHash::stored(&format!("$argon2id${:016x}", self.random.next()))
    }

    /// An account with a free name, or with a name that looks like a taken one.
    pub(super) fn new_account(&mut self, is_taken: bool) -> Result<NewAccount, Entry> {
        let resembles_a_taken_name = |text: &&str| {
            let skeletons = Skeletons::of(&name(text));
            self.accounts.iter().any(|account| Skeletons::of(&account.name).resemble(&skeletons))
        };
        let known = |text: &&str| self.accounts.iter().any(|account| account.name.as_str() == *text);
        let (taken, free): (Vec<&str>, Vec<&str>) = NAMES.into_iter().partition(resembles_a_taken_name);
        // With exactly this name, the token would be for the existing account.
        let alike: Vec<String> = taken.iter().filter(|text| !known(text)).map(|text| (*text).to_owned()).collect();
        let shouted = taken.iter().map(|text| text.to_uppercase()).filter(|text| !known(&&**text));
        let alike: Vec<_> = alike.into_iter().chain(shouted).chain([USERNAME_DEFAULT.to_lowercase()]).collect();
        let text = if is_taken {
            self.random.of(&alike).cloned()
        } else if self.accounts.len() < ACCOUNTS_MAX {
            self.random.of(&free).map(|text| (*text).to_owned())
        } else {
            None
        };
        let Some(text) = text else {
            let account = self.account_ref().unwrap_or(AccountRef::Name(name("nobody")));
            return Err(change(By::Operator, Change::RemoveAccount { account }));
        };
        let name = name(&text);
        let role = if self.random.once_in(3) { Role::Admin } else { Role::User };
        let password = Some(self.password());
        Ok(NewAccount { id: UserId(self.random.uuid()), skeletons: Skeletons::of(&name), name, role, password })
    }

    pub(super) fn create_account(&mut self, role: Role) -> Entry {
        match self.new_account(false) {
            Ok(account) => change(By::Operator, Change::CreateAccount(NewAccount { role, ..account })),
            Err(step) => step,
        }
    }

    pub(super) fn skeletons_of_account(&mut self) -> Result<Skeletons, Entry> {
        match self.random.of(&self.accounts) {
            Some(account) => Ok(Skeletons::of(&account.name)),
            None => Err(self.create_account(Role::User)),
        }
    }

    pub(super) fn login(&mut self) -> NewSession {
        let id = SessionId(self.random.key());
        let token_hash = Some(self.random.token_hash());
        NewSession { id, kind: SessionKind::Login, token_hash, label: "Firefox".into(), span_ms: Some(LOGIN_SPAN_MS) }
    }

    pub(super) fn set_policy(&mut self, accounts: Accounts) -> Entry {
        let registration = Registration::ALL[self.random.below(3)];
        change(By::Server, Change::SetPolicy(Policy { accounts, registration }))
    }

    pub(super) fn register(&mut self, refused: Option<Reason>) -> Made {
        let account = self.new_account(refused == Some(Reason::NameTaken))?;
        let account = NewAccount { role: Role::User, ..account };
        let session = self.login();
        let (code, invitation) = self.registration_code(refused)?;
        if refused == Some(Reason::NoSession) {
            let by = self.operator_or_server();
            return Ok(change(by, Change::Register { account, invitation, session, replaces: None }));
        }
        let wanted = match refused {
            Some(Reason::NameTaken) | None => Ok(()),
            Some(reason) => Err(reason),
        };
        let fits = |client: &&Client| {
            let Ok(role) = self.policy.role(client) else { return wanted == Err(Reason::SessionEnded) };
            let guest_of = client.is_guest().then_some(client.network);
            let context = self.policy.context(Some(client.user()), guest_of, None, self.moment.clock_ms);
            may(role, Action::Register, &PermissionContext { code, ..context }) == wanted
        };
        let clients: Vec<_> = self.clients.iter().filter(fits).cloned().collect();
        let Some(client) = self.random.of(&clients).cloned() else {
            return Err(match wanted {
                Err(reason @ (Reason::Banned | Reason::SessionEnded)) => self.step(Some(reason)),
                Err(Reason::RegistrationClosed) | Ok(()) => self.set_policy(Accounts::Optional),
                Err(_) => self.step(None),
            });
        };
        let replaces = if self.random.once_in(2) { client.session() } else { None };
        Ok(change(by(&client), Change::Register { account, invitation, session, replaces }))
    }

    /// A code to register with, and what it is good for.
    fn registration_code(&mut self, refused: Option<Reason>) -> Result<(RegistrationCode, Option<TokenHash>), Entry> {
        if refused == Some(Reason::NoSuchInvitation) {
            return match self.setup {
                None => Err(self.offer_setup(None).unwrap_or_else(|step| step)),
                Some(setup) if self.is_valid(setup) => Err(self.set_a_role(Role::Admin)),
                // A spent code is refused whether or not there still is an admin.
                Some(_) if self.has_admin() && self.random.once_in(2) => Err(self.set_a_role(Role::User)),
                Some(setup) => Ok((RegistrationCode::SpentSetup, Some(setup.code_hash))),
            };
        }
        if refused != Some(Reason::RegistrationClosed) && self.random.once_in(3) {
            return match self.setup.filter(|setup| self.is_valid(*setup)) {
                Some(setup) => Ok((RegistrationCode::Setup, Some(setup.code_hash))),
                None => Err(self.offer_setup(None).unwrap_or_else(|step| step)),
            };
        }
        let invitation = self.invitations.iter().rev().find(|known| known.room.is_none());
        let invitation = invitation.map(|known| known.code_hash).filter(|_| self.random.once_in(2));
        Ok((invitation.map_or(RegistrationCode::None, |_| RegistrationCode::Invitation), invitation))
    }

    pub(super) fn offer_setup(&mut self, refused: Option<Reason>) -> Made {
        let has_admin = self.has_admin();
        let code_hash = self.random.token_hash();
        let span_ms = 1 + self.random.next() % SETUP_SPAN_MS;
        let offer = Change::OfferSetup { code_hash, span_ms };
        match refused {
            Some(Reason::NotAdmin) => Ok(change(self.not_the_operator(), offer)),
            Some(_) if !has_admin => Err(self.set_a_role(Role::Admin)),
            None if has_admin => Err(self.set_a_role(Role::User)),
            None if self.setup.is_some_and(|setup| setup.is_spent) && self.random.once_in(2) => {
                Err(self.register(Some(Reason::NoSuchInvitation)).unwrap_or_else(|step| step))
            }
            _ => Ok(change(By::Operator, offer)),
        }
    }

    fn has_admin(&self) -> bool {
        self.accounts.iter().any(|account| self.policy.account_role(account.id) == Some(Role::Admin))
    }

    /// Gives a role to an account that has another one.
    fn set_a_role(&mut self, role: Role) -> Entry {
        let has_other = |account: &&KnownAccount| self.policy.account_role(account.id) != Some(role);
        match self.accounts.iter().find(has_other) {
            Some(account) => {
                let account = AccountRef::Id(account.id);
                change(By::Operator, Change::SetRole(NewRole { account, role }))
            }
            None => self.create_account(role),
        }
    }

    pub(super) fn log_in(&mut self, wanted: Verdict) -> Made {
        let clients: Vec<_> = self.clients.iter().filter(|client| self.policy.role(client).is_ok()).cloned().collect();
        let client = self.random.of(&clients).cloned();
        let by = match client.as_ref().filter(|_| wanted != Verdict::Refused(Reason::NoSession)) {
            Some(client) => by(client),
            None => self.operator_or_server(),
        };
        let is_banned = |account: &&KnownAccount| self.policy.is_banned(Banned::User(account.id), self.moment.clock_ms);
        let wants_ban = wanted == Verdict::Refused(Reason::Banned);
        let accounts: Vec<_> = self.accounts.iter().filter(|account| is_banned(account) == wants_ban).collect();
        let Some(account) = self.random.of(&accounts) else {
            let Some((id, name)) = self.random.of(&self.accounts).map(|account| (account.id, account.name.clone()))
            else {
                return Err(self.create_account(Role::User));
            };
            let until_ms = wants_ban.then(|| self.wall_soon());
            let ban = match until_ms {
                Some(_) => BanChange::Ban { until_ms, reason: "spam".into(), by_address: None },
                None => BanChange::Lift,
            };
            let person = Arc::new(Person::guest(id, name));
            let target = Principal { person, proof: Proof::None, network: self.network() };
            return Err(self.restrict(
                By::Operator,
                &Arc::new(target),
                Restrictions { mute_until_ms: None, ban: Some(ban) },
            ));
        };
        let (mut user, known) = (account.id, account.password.clone());
        let mut password = known.unwrap_or_else(|| self.password());
        if wanted == Verdict::Refused(Reason::WrongLogin) {
            if self.random.once_in(3) {
                user = UserId(self.random.uuid());
            } else {
                password = self.password();
            }
        }
        let renewed = self.random.once_in(4).then(|| self.password());
        let session = self.login();
        let replaces = client.and_then(|client| client.session()).filter(|_| self.random.once_in(3));
        Ok(change(by, Change::LogIn(NewLogin { user, password, renewed, session, replaces })))
    }

    pub(super) fn name_guest(&mut self, refused: Option<Reason>) -> Made {
        let client = match refused {
            Some(Reason::LoggedIn) => {
                let accounts: Vec<_> = self.clients.iter().filter(|client| !client.is_guest()).cloned().collect();
                self.random.of(&accounts).cloned().ok_or_else(|| self.step(None))?
            }
            Some(Reason::NotFound) => {
                let over: Vec<_> = self
                    .over
                    .iter()
                    .filter(|client| self.fits(client, Action::Enter, None, Target::Own, Ok(())))
                    .cloned()
                    .collect();
                match self.random.of(&over).cloned() {
                    Some(client) => client,
                    None => {
                        self.waits |= self
                            .clients
                            .iter()
                            .any(|client| client.is_guest() && self.policy.role(client) == Err(Reason::SessionEnded));
                        if self.policy.flags.accounts == Accounts::Required {
                            return Err(self.set_policy(Accounts::Optional));
                        }
                        return Err(self.step(Some(Reason::SessionEnded)));
                    }
                }
            }
            reason => {
                let is_of_permission = |reason: &Reason| is_of_permission(*reason) && *reason != Reason::Muted;
                let wanted = reason.filter(is_of_permission).map_or(Ok(()), Err);
                let is_muted = |user| self.policy.muted_until(user, self.moment.clock_ms).is_some();
                let is_present = |user| self.names.contains_key(&user);
                let is_meant = |client: &&Client| {
                    client.is_guest()
                        && match reason {
                            Some(Reason::RenamedRecently) => self.is_renamed(client.user()) && !is_muted(client.user()),
                            Some(Reason::Muted) => is_present(client.user()) && is_muted(client.user()),
                            _ => true,
                        }
                };
                let clients: Vec<_> = self.clients.iter().filter(is_meant).cloned().collect();
                let fits = |client: &&Client| self.fits(client, Action::Enter, None, Target::Own, wanted);
                let clients: Vec<_> = clients.iter().filter(fits).cloned().collect();
                self.random.of(&clients).cloned().ok_or_else(|| match wanted {
                    Err(reason) => self.step(Some(reason)),
                    Ok(()) if reason == Some(Reason::RenamedRecently) => self.name_present_guest(),
                    Ok(()) if reason == Some(Reason::Muted) => self.mute_present_guest(),
                    Ok(()) => self.set_policy(Accounts::Optional),
                })?
            }
        };
        let user = client.user();
        let session = self.guest_session(&client);
        let (username, skeletons) = if refused == Some(Reason::NameReserved) {
            (name("ana"), self.skeletons_of_account()?)
        } else {
            let mut username = name(GUEST_NAMES[self.random.below(GUEST_NAMES.len())]);
            if self.names.get(&user) == Some(&username) && refused.is_some() {
                username = name("ada");
            }
            let skeletons = Skeletons::of(&username);
            (username, skeletons)
        };
        if refused.is_none() && client.proof == Proof::None {
            // The next client without a token is a different one.
            self.clients.retain(|known| known.proof != Proof::None);
        }
        let by = if refused == Some(Reason::NoSession) { self.operator_or_server() } else { by(&client) };
        Ok(change(by, Change::NameGuest { user, username, skeletons, session }))
    }

    /// The session that a guest names, or begins.
    fn guest_session(&mut self, client: &Client) -> NewSession {
        let (id, token_hash) = match client.proof {
            Proof::Guest(session) => (session, Some(self.random.token_hash())),
            Proof::None if self.random.once_in(2) => (SessionId(self.random.key()), Some(self.random.token_hash())),
            _ => (SessionId::of_guest(client.user()), None),
        };
        NewSession { id, kind: SessionKind::Guest, token_hash, label: "".into(), span_ms: Some(GUEST_SPAN_MS) }
    }

    /// A step towards a muted guest that is in a room.
    fn mute_present_guest(&mut self) -> Entry {
        let is_present = |client: &&Client| client.is_guest() && self.names.contains_key(&client.user());
        let present: Vec<_> = self.clients.iter().filter(is_present).cloned().collect();
        let Some(client) = self.random.of(&present).cloned() else {
            return self.entry(Kind::Join, Verdict::Accepted).unwrap_or_else(|step| step);
        };
        let restrictions = Restrictions { mute_until_ms: Some(self.wall_soon()), ban: None };
        self.restrict(By::Operator, &client, restrictions)
    }

    /// Makes an entry after which a guest in a room has just chosen its name: the name of a guest that is in a room, or,
    /// if there is none, the join of a guest.
    fn name_present_guest(&mut self) -> Entry {
        let is_present = |client: &&Client| client.is_guest() && self.names.contains_key(&client.user());
        let present: Vec<_> = self.clients.iter().filter(is_present).cloned().collect();
        let Some(client) = self.random.of(&present).cloned() else {
            return self.entry(Kind::Join, Verdict::Accepted).unwrap_or_else(|step| step);
        };
        let (user, username) = (client.user(), name(GUEST_NAMES[self.random.below(GUEST_NAMES.len())]));
        let (session, skeletons) = (self.guest_session(&client), Skeletons::of(&username));
        change(by(&client), Change::NameGuest { user, username, skeletons, session })
    }

    pub(super) fn end_session(&mut self, refused: Option<Reason>) -> Made {
        let (by, session) = match refused {
            Some(Reason::NotAdmin) => (By::Server, self.random.of(self.sessions.make_contiguous()).copied()),
            Some(Reason::NotFound) if self.random.once_in(2) => (By::Operator, Some(SessionId(self.random.key()))),
            Some(Reason::NotFound) => {
                let (client, _) = self.able(Action::EndSession, Target::Own, Verdict::Accepted)?;
                (by(&client), Some(SessionId(self.random.key())))
            }
            None if self.random.once_in(4) => (By::Operator, self.random.of(self.sessions.make_contiguous()).copied()),
            reason => {
                let wanted = reason.map_or(Verdict::Accepted, Verdict::Refused);
                let (client, _) = self.able(Action::EndSession, Target::Own, wanted)?;
                (by(&client), client.session())
            }
        };
        let session = session.unwrap_or(SessionId(1));
        Ok(change(by, Change::EndSession { session }))
    }

    pub(super) fn set_password(&mut self, refused: Option<Reason>) -> Made {
        let password = self.password();
        if refused == Some(Reason::NotFound) || refused.is_none() && self.random.once_in(3) {
            let account = self.account_ref().filter(|_| refused.is_none());
            let account = account.unwrap_or(AccountRef::Id(UserId(self.random.uuid())));
            return Ok(change(By::Operator, Change::SetPassword { account, password, old: None, keep: None }));
        }
        let wanted =
            refused.filter(|reason| matches!(reason, Reason::SessionEnded | Reason::Banned)).map_or(Ok(()), Err);
        let fits = |client: &&Client| {
            !client.is_guest()
                && self.accounts.iter().any(|account| account.id == client.user())
                && self.fits(client, Action::ChangePassword, None, Target::Own, wanted)
        };
        let clients: Vec<_> = self.clients.iter().filter(fits).cloned().collect();
        let client = self.random.of(&clients).cloned().ok_or_else(|| self.step(wanted.err()))?;
        let mut account = client.user();
        if refused == Some(Reason::NotYours) {
            let others: Vec<_> = self.accounts.iter().map(|known| known.id).filter(|id| *id != account).collect();
            account = *self.random.of(&others).ok_or_else(|| self.create_account(Role::User))?;
        }
        let known = self.accounts.iter().find(|known| known.id == account);
        let mut old = known.and_then(|known| known.password.clone());
        if refused == Some(Reason::WrongPassword) {
            old = Some(self.password());
        }
        let keep = client.session().filter(|_| self.random.once_in(2));
        Ok(change(by(&client), Change::SetPassword { account: AccountRef::Id(account), password, old, keep }))
    }
}
