//! Entries that change restrictions, rooms and invitations, and entries that forget.

use super::*;

impl World {
    pub(super) fn restrict(&mut self, by: By, target: &Client, restrictions: Restrictions) -> Entry {
        let networks = vec![target.network];
        let user = target.user();
        let target = Some(Arc::clone(target));
        change(by, Change::Restrict(Restrict { user, restrictions, target, networks, is_shared: false }))
    }

    /// A client that an admin can moderate.
    pub(super) fn target(&mut self, role: Option<Role>) -> Option<Client> {
        let fits = |client: &&Client| {
            let is = self.policy.account_role(client.user()).unwrap_or(Role::Guest);
            role.map_or(is != Role::Admin, |role| is == role)
        };
        let clients: Vec<_> = self.clients.iter().filter(fits).cloned().collect();
        self.random.of(&clients).cloned()
    }

    pub(super) fn restriction(&mut self, wanted: Verdict) -> Made {
        let until_ms = self.wall_soon();
        let is_for_good = self.random.once_in(20);
        let by_address = self.random.once_in(3).then(AddressBan::default);
        let ban = BanChange::Ban { until_ms: (!is_for_good).then_some(until_ms), reason: "spam".into(), by_address };
        let mut restrictions = match self.random.below(6) {
            0 => Restrictions { mute_until_ms: Some(0), ban: None },
            1 | 2 => Restrictions { mute_until_ms: Some(until_ms), ban: None },
            3 => Restrictions { mute_until_ms: None, ban: Some(BanChange::Lift) },
            4 => Restrictions { mute_until_ms: Some(until_ms), ban: Some(ban) },
            _ => Restrictions { mute_until_ms: None, ban: Some(ban) },
        };
        let by_address =
            BanChange::Ban { until_ms: Some(until_ms), reason: "spam".into(), by_address: Some(AddressBan::default()) };
        let action = if restrictions.ban.is_some() { Action::Ban } else { Action::Mute };
        let (admin, _) = self.able(action, Target::Others(Role::Guest), wanted)?;
        let target = match wanted {
            Verdict::Refused(Reason::TargetIsSelf) => Some(Arc::clone(&admin)),
            Verdict::Refused(Reason::TargetIsAdmin) => {
                let admins: Vec<_> = self
                    .clients
                    .iter()
                    .filter(|client| {
                        self.policy.account_role(client.user()) == Some(Role::Admin) && client.user() != admin.user()
                    })
                    .cloned()
                    .collect();
                self.random.of(&admins).cloned()
            }
            Verdict::Refused(Reason::TargetIsNoGuest) => {
                restrictions.ban = Some(by_address);
                self.target(Some(Role::User))
            }
            Verdict::Refused(Reason::AddressUnknown | Reason::AddressShared) => {
                restrictions.ban = Some(by_address);
                self.target(Some(Role::Guest)).filter(|client| client.proof != Proof::None)
            }
            Verdict::Refused(Reason::NoSuchUser) => Some(self.guest()),
            Verdict::Accepted => {
                let target = self.target(None);
                let is_guest = target.as_ref().is_some_and(|target| target.is_guest());
                if let Some(BanChange::Ban { by_address, .. }) = &mut restrictions.ban {
                    *by_address = by_address.filter(|_| is_guest);
                }
                target
            }
            _ => self.target(None),
        };
        let target = target.ok_or_else(|| self.step(None))?;
        let by = if wanted == Verdict::Accepted && self.random.once_in(3) { By::Operator } else { by(&admin) };
        let Entry::Change { by, change } = self.restrict(by, &target, restrictions) else { unreachable!() };
        let Change::Restrict(mut restrict) = *change else { unreachable!() };
        match wanted {
            Verdict::Refused(Reason::NoSuchUser) => restrict.target = None,
            Verdict::Refused(Reason::AddressUnknown) => restrict.networks.clear(),
            Verdict::Refused(Reason::AddressShared) => restrict.is_shared = true,
            _ => {}
        }
        Ok(Entry::Change { by, change: Box::new(Change::Restrict(restrict)) })
    }

    pub(super) fn ban_address(&mut self, wanted: Verdict) -> Made {
        let (network, is_shared) = (self.network(), self.random.once_in(4));
        let until_ms = (!self.random.once_in(20)).then(|| self.wall_soon());
        let terms = AddressBanTerms { until_ms, reason: "flood".into(), force: is_shared };
        if wanted == Verdict::Accepted && self.random.once_in(2) {
            return Ok(change(By::Operator, Change::BanAddress { network, terms, is_shared }));
        }
        let (admin, _) = self.able(Action::Ban, Target::Others(Role::Guest), wanted)?;
        let is_refused = wanted == Verdict::Refused(Reason::AddressShared);
        let terms = AddressBanTerms { force: terms.force && !is_refused, ..terms };
        Ok(change(by(&admin), Change::BanAddress { network, terms, is_shared: is_shared || is_refused }))
    }

    pub(super) fn unban_address(&mut self, wanted: Verdict) -> Made {
        let networks = (0..NETWORKS).map(|last| IpAddr::from(Ipv4Addr::new(192, 0, 2, last)));
        let wants_ban = wanted == Verdict::Accepted;
        let networks: Vec<_> = networks
            .filter(|network| self.policy.is_banned(Banned::Address(*network), self.moment.clock_ms) == wants_ban)
            .collect();
        let network = match self.random.of(&networks) {
            Some(network) => *network,
            None if wants_ban => {
                let target = self.target(Some(Role::Guest)).filter(|client| client.proof != Proof::None);
                let target = target.ok_or_else(|| self.step(None))?;
                let until_ms = Some(self.wall_soon());
                let ban =
                    Some(BanChange::Ban { until_ms, reason: "flood".into(), by_address: Some(AddressBan::default()) });
                return Err(self.restrict(By::Operator, &target, Restrictions { mute_until_ms: None, ban }));
            }
            None => self.network(),
        };
        if wanted == Verdict::Accepted && self.random.once_in(2) {
            return Ok(change(By::Operator, Change::UnbanAddress { network }));
        }
        let (admin, _) = self.able(Action::Ban, Target::Others(Role::Guest), wanted)?;
        Ok(change(by(&admin), Change::UnbanAddress { network }))
    }

    pub(super) fn kick(&mut self, wanted: Verdict) -> Made {
        let (admin, mut room) = self.able(Action::Kick, Target::Others(Role::Guest), wanted)?;
        let target = match wanted {
            Verdict::Refused(Reason::TargetIsSelf) => Some(Arc::clone(&admin)),
            Verdict::Refused(Reason::TargetIsAdmin) => {
                let admins: Vec<_> = self
                    .clients
                    .iter()
                    .filter(|client| {
                        self.policy.account_role(client.user()) == Some(Role::Admin) && client.user() != admin.user()
                    })
                    .cloned()
                    .collect();
                self.random.of(&admins).cloned()
            }
            Verdict::Refused(Reason::NoSuchUser) => Some(self.guest()),
            Verdict::Accepted => {
                let fits = |(of, client, _): &&(RoomId, Client, ConnectionId)| {
                    client.user() != admin.user()
                        && self.policy.account_role(client.user()) != Some(Role::Admin)
                        && self.fits(&admin, Action::Kick, Some(of), Target::Others(Role::Guest), Ok(()))
                };
                let present: Vec<_> = self.connections.iter().filter(fits).cloned().collect();
                match self.random.of(&present).cloned() {
                    Some((of, client, _)) if !self.moment.index.is_multiple_of(4) => {
                        room = of;
                        Some(client)
                    }
                    _ if self.random.once_in(2) => self.target(None),
                    _ => return Err(self.entry(Kind::Join, Verdict::Accepted).unwrap_or_else(|step| step)),
                }
            }
            _ => self.target(None),
        };
        let target = target.ok_or_else(|| self.step(None))?;
        let user = target.user();
        let target = Some(target).filter(|_| wanted != Verdict::Refused(Reason::NoSuchUser));
        Ok(change(by(&admin), Change::Kick { room, user, target }))
    }

    pub(super) fn new_invitation(&mut self, room: Option<RoomId>) -> NewInvitation {
        NewInvitation {
            id: InvitationId(self.random.key()),
            code_hash: self.random.token_hash(),
            room,
            uses: 1 + self.random.below(3) as u32,
            span_ms: 1_000 + self.random.next() % 7_200_000,
        }
    }

    pub(super) fn private_room(&mut self) -> Result<RoomId, Entry> {
        let private: Vec<_> = self.rooms.iter().filter(|room| self.policy.is_private(room)).cloned().collect();
        self.random.of(&private).cloned().ok_or_else(|| self.step(Some(Reason::NoSuchRoom)))
    }

    pub(super) fn invite(&mut self, wanted: Verdict) -> Made {
        let is_closed = self.policy.flags.registration == Registration::Closed;
        match wanted {
            Verdict::Refused(Reason::RegistrationOff) => {
                if !is_closed {
                    return Err(self.set_policy(Accounts::Optional));
                }
                let (admin, _) = self.able(Action::InviteToRegister, Target::Own, Verdict::Accepted)?;
                Ok(change(by(&admin), Change::Invite(self.new_invitation(None))))
            }
            Verdict::Refused(Reason::RoomIsPublic) => {
                let (admin, room) = self.able(Action::InviteToRoom, Target::Own, Verdict::Accepted)?;
                Ok(change(by(&admin), Change::Invite(self.new_invitation(Some(room)))))
            }
            Verdict::Accepted if self.random.once_in(2) => {
                if is_closed {
                    return Err(self.set_policy(Accounts::Optional));
                }
                let (admin, _) = self.able(Action::InviteToRegister, Target::Own, wanted)?;
                Ok(change(by(&admin), Change::Invite(self.new_invitation(None))))
            }
            Verdict::Accepted => {
                let room = self.private_room()?;
                let is_able =
                    |client: &&Client| self.fits(client, Action::InviteToRoom, Some(&room), Target::Own, Ok(()));
                let by = self.clients.iter().find(is_able).map_or(By::Operator, by);
                Ok(change(by, Change::Invite(self.new_invitation(Some(room)))))
            }
            _ => {
                let (client, room) = self.able(Action::InviteToRoom, Target::Own, wanted)?;
                Ok(change(by(&client), Change::Invite(self.new_invitation(Some(room)))))
            }
        }
    }

    pub(super) fn revoke(&mut self, wanted: Verdict) -> Made {
        let known: Vec<_> = self.invitations.iter().map(|known| (known.id, known.room.clone())).collect();
        let (known, room) = self.random.of(&known).cloned().unzip();
        match wanted {
            Verdict::Accepted => {
                let invitation = known.ok_or_else(|| self.invite(wanted).unwrap_or_else(|step| step))?;
                let room = room.flatten();
                let action = if room.is_some() { Action::InviteToRoom } else { Action::InviteToRegister };
                let is_able = |client: &&Client| self.fits(client, action, room.as_ref(), Target::Own, Ok(()));
                let admin = self.clients.iter().find(is_able).filter(|_| !self.moment.index.is_multiple_of(3));
                Ok(change(admin.map_or(By::Operator, by), Change::Revoke { invitation }))
            }
            Verdict::Refused(Reason::NotMember) => {
                let Some((invitation, room)) = known.zip(room.flatten()) else {
                    return Err(self.invite(Verdict::Accepted).unwrap_or_else(|step| step));
                };
                let refused = Err(Reason::NotMember);
                let is_refused =
                    |client: &&Client| self.fits(client, Action::InviteToRoom, Some(&room), Target::Own, refused);
                let admin = self.clients.iter().find(is_refused).map(by);
                Ok(change(admin.ok_or_else(|| self.step(None))?, Change::Revoke { invitation }))
            }
            _ => {
                let (client, _) = self.able(Action::InviteToRegister, Target::Own, wanted)?;
                let unknown = InvitationId(self.random.key());
                let known = known.filter(|_| wanted != Verdict::Refused(Reason::NotFound));
                Ok(change(by(&client), Change::Revoke { invitation: known.unwrap_or(unknown) }))
            }
        }
    }

    pub(super) fn use_invitation(&mut self, wanted: Verdict) -> Made {
        let to_rooms = self.invitations.iter().filter_map(|known| Some((known.room.clone()?, known.code_hash)));
        let to_rooms: Vec<_> = to_rooms.filter(|(room, _)| self.policy.is_private(room)).collect();
        let found = self.random.of(&to_rooms).cloned();
        let (mut room, mut code_hash) = match found {
            Some(found) => found,
            None if wanted == Verdict::Accepted => {
                let room = self.private_room()?;
                return Err(change(By::Operator, Change::Invite(self.new_invitation(Some(room)))));
            }
            None => (self.a_room(), self.random.token_hash()),
        };
        if wanted == Verdict::Refused(Reason::NoSession) {
            return Ok(change(self.operator_or_server(), Change::UseInvitation { room, code_hash }));
        }
        let is_to_no_room = wanted == Verdict::Refused(Reason::NoSuchRoom);
        let of_permission = if is_to_no_room { Verdict::Accepted } else { wanted };
        let (client, _) = self.able_where(Action::Enter, Target::Own, of_permission, false)?;
        if is_to_no_room {
            if self.random.once_in(2) {
                code_hash = self.random.token_hash();
            } else {
                room = self.a_room();
            }
        }
        Ok(change(by(&client), Change::UseInvitation { room, code_hash }))
    }

    pub(super) fn forget(&mut self, kind: Kind) -> Change {
        match kind {
            Kind::Forget => {
                let full = self.frames.iter().find(|(_, frames)| frames.len() > FRAMES_MANY);
                let full = full.map(|(room, _)| room.clone());
                let room = full.clone().unwrap_or_else(|| self.a_room());
                let head = self.heads.get(&room).copied().unwrap_or_default();
                let kept = self.frames.get(&room).map_or(0, Vec::len) as u64;
                let up_to = match self.random.below(8) {
                    _ if full.is_some() => head.0 - self.random.next() % 10,
                    0 => head.0 + 3,
                    1 => head.0,
                    _ => head.0.saturating_sub(kept) + self.random.next() % 4,
                };
                Change::Forget { room, up_to: Seq(up_to) }
            }
            Kind::EraseMessages => {
                // Most are there, some are no longer, and some are of other rooms.
                let room = self.a_room();
                let other = if self.random.once_in(8) { self.a_room() } else { room.clone() };
                let frames = self.frames.get(&other).map_or(&[][..], Vec::as_slice);
                let count = self.random.below(5);
                let messages = (0..count).filter_map(|_| Some(self.random.of(frames)?.id)).collect();
                Change::EraseMessages { room, messages }
            }
            Kind::ForgetRooms => {
                let rooms = (0..1 + self.random.below(3)).filter_map(|_| self.random.of(&self.all_rooms).cloned());
                Change::ForgetRooms { rooms: rooms.collect() }
            }
            Kind::ForgetAuditEntries => {
                let entries = (0..self.random.below(4)).map(|_| AuditId(self.random.below(5_000) as i64)).collect();
                Change::ForgetAuditEntries { entries }
            }
            _ => {
                let sessions =
                    (0..self.random.below(3)).filter_map(|_| self.random.of(self.sessions.make_contiguous()).copied());
                Change::ForgetSessions { sessions: sessions.collect() }
            }
        }
    }
}
