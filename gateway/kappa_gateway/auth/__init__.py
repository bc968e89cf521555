"""Who calls: API keys, JSON Web Tokens, Kubernetes identities. Checked before a body is read or an instance chosen."""
