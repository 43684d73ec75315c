//! `CREATE ROLE`, `CREATE USER` and `ALTER ROLE`: superusers only. What a role cannot have here is
//! refused; a password never gets into a message.

use catalog::{Change, Role, Snapshot};
use datafusion::sql::sqlparser::ast;

use super::{Outcome, Run};
use crate::dialect::words::{fold, parts};
use crate::engine::open::ADMIN;
use crate::error::{Error, Result, SqlState};
use crate::governance::{privileges, scram};

/// `CREATE ROLE name [options]`.
pub(super) async fn create(run: &Run, s: &ast::CreateRole) -> Result<Outcome> {
    refuse_options(s)?;
    let name = one_name(&s.names)?;
    let verifier = s.password.as_ref().map(verifier).transpose()?.flatten();
    let engine = &run.scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let caller = &run.scope.caller.role;
    privileges::check_superuser(&catalog, caller, "create roles")?;
    if catalog.role(&name).is_some() {
        return match s.if_not_exists {
            true => Outcome::command("CREATE ROLE"),
            false => Err(exists(&name)),
        };
    }
    let mut role = Role {
        oid: engine.allocate_oid().await?,
        name,
        login: s.login.unwrap_or(false),
        superuser: s.superuser.unwrap_or(false),
        scram_verifier: verifier,
        member_of: Vec::new(),
        version: 0,
    };
    for group in s.in_role.iter().chain(&s.in_group) {
        let group = privileges::role(&catalog, &fold(group))?.oid;
        if !role.member_of.contains(&group) {
            role.member_of.push(group);
        }
    }
    let members = members(&catalog, s, &role)?;
    let mut changes = vec![Change::PutRole(role)];
    changes.extend(members.into_iter().map(Change::PutRole));
    engine.commit(changes).await?;
    run.session()?
        .with_transaction(|t| t.note_write("CREATE ROLE"));
    Outcome::command("CREATE ROLE")
}

/// `CREATE USER`: PostgreSQL's options do not reach us through this form.
pub(super) async fn create_user(run: &Run, s: &ast::CreateUser) -> Result<Outcome> {
    let name = fold(&s.name);
    if s.or_replace || s.with_tags || !s.options.options.is_empty() || !s.tags.options.is_empty() {
        return Err(Error::unsupported(
            "CREATE USER with options is not supported",
            "use CREATE ROLE … LOGIN PASSWORD '…'",
        ));
    }
    check_name(&name)?;
    let engine = &run.scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    privileges::check_superuser(&catalog, &run.scope.caller.role, "create roles")?;
    if catalog.role(&name).is_some() {
        return match s.if_not_exists {
            true => Outcome::command("CREATE ROLE"),
            false => Err(exists(&name)),
        };
    }
    let role = Role {
        oid: engine.allocate_oid().await?,
        name,
        login: true,
        superuser: false,
        scram_verifier: None,
        member_of: Vec::new(),
        version: 0,
    };
    engine.commit(vec![Change::PutRole(role)]).await?;
    run.session()?
        .with_transaction(|t| t.note_write("CREATE ROLE"));
    Outcome::command("CREATE ROLE")
}

/// `ALTER ROLE name [WITH] options` and `RENAME TO`.
pub(super) async fn alter(
    run: &Run,
    name: &ast::Ident,
    operation: &ast::AlterRoleOperation,
) -> Result<Outcome> {
    let engine = &run.scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    privileges::check_superuser(&catalog, &run.scope.caller.role, "alter roles")?;
    let mut role = privileges::role(&catalog, &fold(name))?.clone();
    match operation {
        ast::AlterRoleOperation::WithOptions { options } => {
            for option in options {
                set_option(&mut role, option)?;
            }
        }
        ast::AlterRoleOperation::RenameRole { role_name } => {
            let new = fold(role_name);
            check_name(&new)?;
            check_rename(run, &catalog, &role, &new)?;
            role.name = new;
        }
        ast::AlterRoleOperation::AddMember { .. } | ast::AlterRoleOperation::DropMember { .. } => {
            return Err(Error::unsupported(
                "ALTER ROLE … MEMBER is not supported",
                "use GRANT group TO role and REVOKE group FROM role",
            ));
        }
        ast::AlterRoleOperation::Set { .. } | ast::AlterRoleOperation::Reset { .. } => {
            return Err(Error::unsupported(
                "settings of roles are not supported",
                "SET them in the session, or give them when connecting",
            ));
        }
    }
    engine.commit(vec![Change::PutRole(role)]).await?;
    run.session()?
        .with_transaction(|t| t.note_write("ALTER ROLE"));
    Outcome::command("ALTER ROLE")
}

/// Refuses what is read but cannot be honoured. `NO…` options that state what is so anyway pass.
fn refuse_options(s: &ast::CreateRole) -> Result<()> {
    let asked = [
        (s.bypassrls == Some(true), "BYPASSRLS"),
        (s.create_db == Some(true), "CREATEDB"),
        (s.create_role == Some(true), "CREATEROLE"),
        (s.replication == Some(true), "REPLICATION"),
        (s.inherit == Some(false), "NOINHERIT"),
        (s.connection_limit.is_some(), "CONNECTION LIMIT"),
        (s.valid_until.is_some(), "VALID UNTIL"),
        (!s.admin.is_empty(), "ADMIN"),
        (s.authorization_owner.is_some(), "AUTHORIZATION"),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, option)) => Err(no_option(option)),
        None => Ok(()),
    }
}

fn no_option(option: &str) -> Error {
    Error::unsupported(
        format!("role option {option} is not supported"),
        "roles have LOGIN, SUPERUSER, PASSWORD and IN ROLE",
    )
}

fn set_option(role: &mut Role, option: &ast::RoleOption) -> Result<()> {
    match option {
        ast::RoleOption::Login(login) => {
            keep_admin(role, *login, "NOLOGIN")?;
            role.login = *login;
        }
        ast::RoleOption::SuperUser(superuser) => {
            keep_admin(role, *superuser, "NOSUPERUSER")?;
            role.superuser = *superuser;
        }
        ast::RoleOption::Password(password) => role.scram_verifier = verifier(password)?,
        ast::RoleOption::Inherit(true)
        | ast::RoleOption::BypassRLS(false)
        | ast::RoleOption::CreateDB(false)
        | ast::RoleOption::CreateRole(false)
        | ast::RoleOption::Replication(false) => {}
        ast::RoleOption::Inherit(false) => return Err(no_option("NOINHERIT")),
        ast::RoleOption::BypassRLS(true) => return Err(no_option("BYPASSRLS")),
        ast::RoleOption::CreateDB(true) => return Err(no_option("CREATEDB")),
        ast::RoleOption::CreateRole(true) => return Err(no_option("CREATEROLE")),
        ast::RoleOption::Replication(true) => return Err(no_option("REPLICATION")),
        ast::RoleOption::ConnectionLimit(_) => return Err(no_option("CONNECTION LIMIT")),
        ast::RoleOption::ValidUntil(_) => return Err(no_option("VALID UNTIL")),
    }
    Ok(())
}

/// The first superuser is what the server itself runs as: it stays what it is.
fn keep_admin(role: &Role, keeps: bool, option: &str) -> Result<()> {
    match keeps || role.name != ADMIN {
        true => Ok(()),
        false => Err(Error::refused(
            SqlState::OBJECT_IN_USE,
            format!("role \"{ADMIN}\" cannot be made {option}: the server runs as it"),
        )),
    }
}

fn check_rename(run: &Run, catalog: &Snapshot, role: &Role, new: &str) -> Result<()> {
    keep_admin(role, false, "another name's")?;
    if catalog.role(new).is_some() {
        return Err(exists(new));
    }
    // sessions know their role by its name
    if run
        .scope
        .engine
        .sessions
        .list()
        .iter()
        .any(|a| a.role == role.name)
    {
        return Err(Error::refused(
            SqlState::OBJECT_IN_USE,
            format!("role \"{}\" is used by an open session", role.name),
        )
        .with_hint("close its connections first"));
    }
    Ok(())
}

/// Roles named in `ROLE` and `USER`: they become members of the new one.
fn members(catalog: &Snapshot, s: &ast::CreateRole, group: &Role) -> Result<Vec<Role>> {
    let mut out: Vec<Role> = Vec::new();
    for name in s.role.iter().chain(&s.user) {
        let member = privileges::role(catalog, &fold(name))?;
        let circle = group
            .member_of
            .iter()
            .any(|parent| privileges::inherited(catalog, *parent).contains(&member.oid));
        if circle {
            return Err(super::grant::circle(&group.name, &member.name));
        }
        if out.iter().all(|m| m.oid != member.oid) {
            let mut member = member.clone();
            member.member_of.push(group.oid);
            out.push(member);
        }
    }
    Ok(out)
}

fn verifier(password: &ast::Password) -> Result<Option<String>> {
    let text = match password {
        ast::Password::NullPassword => return Ok(None),
        ast::Password::Password(ast::Expr::Value(value)) => match &value.value {
            ast::Value::SingleQuotedString(text)
            | ast::Value::EscapedStringLiteral(text)
            | ast::Value::DollarQuotedString(ast::DollarQuotedString { value: text, .. }) => text,
            _ => return Err(bad_password("password must be a string literal")),
        },
        ast::Password::Password(_) => {
            return Err(bad_password("password must be a string literal"));
        }
    };
    if text.is_empty() {
        return Err(bad_password("password must not be empty"));
    }
    if text.starts_with("SCRAM-SHA-256$") || (text.len() == 35 && text.starts_with("md5")) {
        return Err(Error::unsupported(
            "passwords that are hashed already are not supported",
            "give the password itself; only its verifier is stored",
        ));
    }
    Ok(Some(scram::make_verifier(text)))
}

fn bad_password(message: &str) -> Error {
    Error::refused(SqlState::INVALID_PARAMETER_VALUE, message)
        .with_hint("PASSWORD NULL makes a role without a password")
}

fn one_name(names: &[ast::ObjectName]) -> Result<String> {
    let [name] = names else {
        return Err(Error::unsupported(
            "several roles in one statement are not supported",
            "use one CREATE ROLE for each",
        ));
    };
    let parts = parts(name);
    let [name] = parts.as_slice() else {
        return Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            "a role's name has no schema",
        ));
    };
    check_name(name)?;
    Ok(name.clone())
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            "a role's name must not be empty",
        ));
    }
    match matches!(name, "public" | "none") || name.starts_with("pg_") {
        true => Err(Error::refused(
            SqlState::RESERVED_NAME,
            format!("role name \"{name}\" is reserved"),
        )),
        false => Ok(()),
    }
}

fn exists(name: &str) -> Error {
    Error::refused(
        SqlState::DUPLICATE_OBJECT,
        format!("role \"{name}\" already exists"),
    )
}
