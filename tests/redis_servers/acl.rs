//! The user that a production server would give the library.

/// A user who may run exactly these commands, on keys and channels of one prefix.
///
/// The line is one of `redis.conf`, for [`Options::line`](super::Options::line); without its first word it is the
/// words of `ACL SETUSER`. Neither password nor prefix may have spaces, the prefix no glob characters.
pub fn acl_user(name: &str, password: &str, commands: &[&str], prefix: &str) -> String {
    let allowed: String = commands.iter().map(|command| format!(" +{command}")).collect();
    format!("user {name} reset on >{password} ~{prefix}* &{prefix}* -@all{allowed}")
}
