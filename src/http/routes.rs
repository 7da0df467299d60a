//! The routes: each path with its operations. The router runs this table, and `GET /api/openapi.json` shows it.

use super::handlers::{accounts, assets, audit, health, invitations, messages, moderation, rooms, sessions};
use super::openapi;
use super::operation::{DONE, Needs, Readers, Route, answer, delete, get, patch, post, put, text};
use crate::model::reason::Reason;

/// Refusals of a client by its token or address.
const CLIENT: &[Reason] = &[Reason::InvalidToken, Reason::LoginRequired, Reason::Banned];
/// Refusals of a client that must have a session.
const SESSION: &[Reason] = &[Reason::NoSession, Reason::SessionEnded];
/// Refusals of anything that is stored.
const STORING: &[Reason] =
    &[Reason::ForeignOrigin, Reason::RateLimited, Reason::DiskFull, Reason::NotStored, Reason::OutcomeUnknown];
/// Refusals of a body that must be JSON.
const JSON: &[Reason] = &[Reason::UnknownMediaType, Reason::BadJson, Reason::MalformedField];
/// Refusals of a query.
const QUERY: &[Reason] = &[Reason::BadQuery, Reason::BadEscape];
/// Refusals of a name or of an `Idempotency-Key`.
const NAME: &[Reason] = &[Reason::BadName, Reason::NameTooLong];
/// Refusals of a client that is no admin, or whose action is about an admin.
const ADMIN: &[Reason] = &[Reason::NotAdmin];
const TARGET: &[Reason] = &[Reason::TargetIsSelf, Reason::TargetIsAdmin];
const ROOM: &[Reason] = &[Reason::NoSuchRoom, Reason::NotMember];

/// The path at which the page's files begin.
pub(super) const PAGE: &Route = &Route {
    path: "/",
    readers: Readers::AllowedOrigins,
    operations: &[get("getFile", assets::get, "Get a file of the page")],
};

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/healthz",
        readers: Readers::AnyOrigin,
        operations: &[get("checkHealth", health::healthz, "Check that the hub and the store answer")
            .answers(&[text("text/plain; charset=utf-8", "The server is healthy.")])
            .refusals(&[&[Reason::NotStored]])],
    },
    Route {
        path: "/metrics",
        readers: Readers::AllowedOrigins,
        operations: &[get("getMetrics", health::metrics, "Get the metrics for Prometheus")
            .answers(&[text("text/plain; version=0.0.4", "The metrics in the text format of Prometheus.")])],
    },
    Route {
        path: "/api/openapi.json",
        readers: Readers::AnyOrigin,
        operations: &[get("getOpenApi", openapi::get, "Get this description of the API").answers(&[answer(
            200,
            "OpenApi",
            "The description, as OpenAPI 3.1.",
        )])],
    },
    Route {
        path: "/api/about",
        readers: Readers::AnyOrigin,
        operations: &[get("getAbout", accounts::about, "Get the rules for accounts and registration")
            .answers(&[answer(200, "About", "The rules.")])],
    },
    Route {
        path: "/api/rooms",
        readers: Readers::AnyOrigin,
        operations: &[get("listRooms", rooms::list, "List the rooms that have members or stored messages")
            .parameters(&["sort_rooms", "after_room", "rooms_limit"])
            .answers(&[answer(200, "RoomPage", "The rooms.")])
            .refusals(&[CLIENT, QUERY, &[Reason::RateLimited]])],
    },
    Route {
        path: "/api/rooms/{room}",
        readers: Readers::AnyOrigin,
        operations: &[
            get("getRoom", rooms::get, "Get a room and the people in it")
                .answers(&[answer(200, "RoomDetails", "The room.")])
                .refusals(&[CLIENT, ROOM]),
            patch("setRoom", moderation::set_room, "Change the settings of a room")
                .needs(Needs::Admin)
                .json("RoomPatch")
                .answers(&[answer(200, "RoomSettings", "All settings of the room.")])
                .refusals(&[
                    CLIENT,
                    SESSION,
                    ADMIN,
                    ROOM,
                    JSON,
                    NAME,
                    STORING,
                    &[Reason::BadField, Reason::DefaultRoom],
                ]),
            delete("deleteRoom", moderation::delete_room, "Delete a room with all its messages")
                .needs(Needs::Admin)
                .answers(&[DONE])
                .refusals(&[CLIENT, SESSION, ADMIN, ROOM, STORING]),
        ],
    },
    Route {
        path: "/api/rooms/{room}/messages",
        readers: Readers::AnyOrigin,
        operations: &[
            get("listMessages", messages::list, "Read or search the messages of a room")
                .parameters(&["before", "after", "around", "messages_limit", "q"])
                .answers(&[answer(200, "MessagePage", "Messages, the oldest first; with `after` also other events.")])
                .refusals(&[CLIENT, ROOM, QUERY, &[Reason::RateLimited]]),
            post("postMessage", messages::post, "Post a message")
                .parameters(&["username", "idempotency_key"])
                .json_or_text("NewMessage")
                .answers(&[
                    answer(201, "StoredMessage", "The message is stored."),
                    answer(200, "StoredMessage", "The message was stored before, under the same nonce."),
                ])
                .refusals(&[
                    CLIENT,
                    ROOM,
                    JSON,
                    NAME,
                    STORING,
                    &[
                        Reason::SessionEnded,
                        Reason::BadEscape,
                        Reason::BadRoom,
                        Reason::BadField,
                        Reason::EmptyMessage,
                        Reason::MessageTooLong,
                        Reason::UnknownType,
                        Reason::NoSuchReply,
                        Reason::NoSuchMessage,
                        Reason::NoSuchUser,
                        Reason::NameReserved,
                        Reason::NonceUsed,
                        Reason::Muted,
                        Reason::ReadOnly,
                        Reason::SlowMode,
                    ],
                ]),
        ],
    },
    Route {
        path: "/api/rooms/{room}/messages/{message}",
        readers: Readers::AnyOrigin,
        operations: &[
            get("getMessage", messages::get, "Get a message")
                .answers(&[answer(200, "StoredMessage", "The message.")])
                .refusals(&[CLIENT, ROOM, &[Reason::NoSuchMessage, Reason::RateLimited]]),
            delete("deleteMessage", messages::delete, "Delete a message: an own one, or any as an admin")
                .needs(Needs::Session)
                .parameters(&["idempotency_key"])
                .answers(&[DONE])
                .refusals(&[
                    CLIENT,
                    SESSION,
                    ROOM,
                    NAME,
                    STORING,
                    &[Reason::NoSuchMessage, Reason::NotYours, Reason::NonceUsed],
                ]),
        ],
    },
    Route {
        path: "/api/rooms/{room}/members",
        readers: Readers::AnyOrigin,
        operations: &[
            get("listMembers", rooms::members, "List the people in a room")
                .parameters(&["after_member", "members_limit"])
                .answers(&[answer(200, "PersonPage", "The people, ordered by id.")])
                .refusals(&[CLIENT, ROOM, QUERY, &[Reason::RateLimited]]),
            post("acceptInvitation", invitations::accept, "Become a member of a private room by an invitation")
                .needs(Needs::Session)
                .json("InvitationCode")
                .answers(&[answer(200, "RoomSettings", "The settings of the room.")])
                .refusals(&[CLIENT, SESSION, ROOM, JSON, STORING]),
        ],
    },
    Route {
        path: "/api/rooms/{room}/members/{user}",
        readers: Readers::AllowedOrigins,
        operations: &[delete("kick", moderation::kick, "Kick a user out of a room")
            .needs(Needs::Admin)
            .answers(&[DONE])
            .refusals(&[CLIENT, SESSION, ADMIN, TARGET, ROOM, STORING, &[Reason::NoSuchUser, Reason::NotJoined]])],
    },
    Route {
        path: "/api/session",
        readers: Readers::AllowedOrigins,
        operations: &[
            get("getSession", sessions::get, "Get the session of this client")
                .needs(Needs::Session)
                .answers(&[answer(200, "Session", "The session.")])
                .refusals(&[CLIENT, SESSION]),
            post("beginSession", sessions::begin, "Begin a session as a guest, or log in with a password")
                .json("Login")
                .answers(&[
                    answer(201, "Session", "The new session, with its token. The token is also set as a cookie."),
                    answer(200, "Session", "The guest has the new name."),
                ])
                .refusals(&[
                    CLIENT,
                    JSON,
                    NAME,
                    STORING,
                    &[
                        Reason::SessionEnded,
                        Reason::NameReserved,
                        Reason::RenamedRecently,
                        Reason::LoggedIn,
                        Reason::WrongLogin,
                        Reason::BadPassword,
                        Reason::TooManyAttempts,
                    ],
                ]),
            delete("endSession", sessions::end, "Log out").needs(Needs::Session).answers(&[DONE]).refusals(&[
                CLIENT,
                SESSION,
                STORING,
                &[Reason::NotFound],
            ]),
        ],
    },
    Route {
        path: "/api/sessions",
        readers: Readers::AllowedOrigins,
        operations: &[get("listSessions", sessions::list, "List the sessions of this user")
            .needs(Needs::Session)
            .answers(&[answer(200, "SessionList", "The sessions.")])
            .refusals(&[CLIENT, SESSION])],
    },
    Route {
        path: "/api/sessions/{session}",
        readers: Readers::AllowedOrigins,
        operations: &[delete("endOtherSession", sessions::end_one, "End a session of this user")
            .needs(Needs::Session)
            .answers(&[DONE])
            .refusals(&[CLIENT, SESSION, STORING, &[Reason::NotFound]])],
    },
    Route {
        path: "/api/accounts",
        readers: Readers::AllowedOrigins,
        operations: &[post("register", accounts::register, "Create an account and log in")
            .json("Registration")
            .answers(&[answer(201, "Session", "The session of the new account, with its token.")])
            .refusals(&[
                CLIENT,
                JSON,
                NAME,
                STORING,
                &[
                    Reason::SessionEnded,
                    Reason::RegistrationClosed,
                    Reason::AlreadyRegistered,
                    Reason::NoSuchInvitation,
                    Reason::NameTaken,
                    Reason::BadPassword,
                    Reason::TooManyAttempts,
                ],
            ])],
    },
    Route {
        path: "/api/account/password",
        readers: Readers::AllowedOrigins,
        operations: &[put("changePassword", accounts::change_password, "Change the password of this account")
            .needs(Needs::Account)
            .json("PasswordChange")
            .answers(&[DONE])
            .refusals(&[
                CLIENT,
                SESSION,
                JSON,
                STORING,
                &[
                    Reason::AccountRequired,
                    Reason::NoPassword,
                    Reason::WrongPassword,
                    Reason::BadPassword,
                    Reason::TooManyAttempts,
                ],
            ])],
    },
    Route {
        path: "/api/invitations",
        readers: Readers::AllowedOrigins,
        operations: &[
            get("listInvitations", invitations::list, "List the invitations that can still be used")
                .needs(Needs::Admin)
                .parameters(&["invitations_room"])
                .answers(&[answer(200, "InvitationList", "The invitations, without their codes.")])
                .refusals(&[CLIENT, SESSION, ADMIN, ROOM, &[Reason::RateLimited, Reason::BadEscape]]),
            post("createInvitation", invitations::create, "Create an invitation to a private room, or to register")
                .needs(Needs::Admin)
                .json("NewInvitation")
                .answers(&[answer(201, "Invitation", "The invitation, with its code.")])
                .refusals(&[
                    CLIENT,
                    SESSION,
                    ADMIN,
                    ROOM,
                    JSON,
                    STORING,
                    &[Reason::BadField, Reason::RoomIsPublic, Reason::RegistrationOff],
                ]),
        ],
    },
    Route {
        path: "/api/invitations/{invitation}",
        readers: Readers::AllowedOrigins,
        operations: &[delete("revokeInvitation", invitations::revoke, "Revoke an invitation")
            .needs(Needs::Admin)
            .answers(&[DONE])
            .refusals(&[CLIENT, SESSION, ADMIN, STORING, &[Reason::NotFound]])],
    },
    Route {
        path: "/api/users/{user}",
        readers: Readers::AllowedOrigins,
        operations: &[put("restrictUser", moderation::restrict, "Mute or ban a user, or end a mute or ban")
            .needs(Needs::Admin)
            .json("Restrictions")
            .answers(&[answer(200, "RestrictedUser", "The restrictions of the user.")])
            .refusals(&[
                CLIENT,
                SESSION,
                ADMIN,
                TARGET,
                JSON,
                NAME,
                STORING,
                &[
                    Reason::BadField,
                    Reason::NoSuchUser,
                    Reason::AddressUnknown,
                    Reason::AddressShared,
                    Reason::TargetIsNoGuest,
                ],
            ])],
    },
    Route {
        path: "/api/bans",
        readers: Readers::AllowedOrigins,
        operations: &[get("listBans", moderation::bans, "List the banned users and addresses")
            .needs(Needs::Admin)
            .answers(&[answer(200, "BanList", "The bans.")])
            .refusals(&[CLIENT, ADMIN, &[Reason::RateLimited]])],
    },
    Route {
        path: "/api/bans/{address}",
        readers: Readers::AllowedOrigins,
        operations: &[
            put("banAddress", moderation::ban_address, "Ban the guests of an address")
                .needs(Needs::Admin)
                .json("AddressBan")
                .answers(&[DONE])
                .refusals(&[
                    CLIENT,
                    SESSION,
                    ADMIN,
                    STORING,
                    JSON,
                    NAME,
                    &[Reason::BadField, Reason::NotFound, Reason::AddressShared],
                ]),
            delete("unbanAddress", moderation::unban_address, "End the ban of an address")
                .needs(Needs::Admin)
                .answers(&[DONE])
                .refusals(&[CLIENT, SESSION, ADMIN, STORING, &[Reason::NotFound]]),
        ],
    },
    Route {
        path: "/api/audit",
        readers: Readers::AllowedOrigins,
        operations: &[get("listAuditEntries", audit::list, "Read the audit log, the newest entry first")
            .needs(Needs::Admin)
            .parameters(&["before_audit_entry", "audit_limit"])
            .answers(&[answer(200, "AuditPage", "Entries of the audit log.")])
            .refusals(&[CLIENT, ADMIN, QUERY, &[Reason::RateLimited]])],
    },
    Route {
        path: "/api/announcements",
        readers: Readers::AllowedOrigins,
        operations: &[post("announce", moderation::announce, "Post a message to all rooms that have members")
            .needs(Needs::Admin)
            .parameters(&["idempotency_key"])
            .json("Announcement")
            .answers(&[answer(202, "AnnouncementAccepted", "The announcement is stored.")])
            .refusals(&[
                CLIENT,
                SESSION,
                ADMIN,
                JSON,
                NAME,
                STORING,
                &[Reason::EmptyMessage, Reason::MessageTooLong, Reason::Muted, Reason::NonceUsed],
            ])],
    },
    #[cfg(test)]
    Route {
        path: super::server::PANIC_PATH,
        readers: Readers::AllowedOrigins,
        operations: &[get("panic", |_| panic!("for a test"), "Panic, for a test")],
    },
];
