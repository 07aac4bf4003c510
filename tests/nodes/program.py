"""`python -m tests.nodes.program`: the command line, with the verbs of nodes in it."""

from app.cli import command, node_config, node_setup, pull_secret


def main() -> None:
    registered = {one.name for one in (*command._root.registered_commands, *command._root.registered_groups)}
    if "node-setup" not in registered:
        command._root.add_typer(node_setup.commands, name="node-setup")
        command._root.command("node-config")(node_config.node_config)
        command._root.command("pull-secret")(pull_secret.pull_secret)
    command.main()


if __name__ == "__main__":
    main()
