"""What the configs of the platform's kinds hold, as the SDK's node classes write them.

Only what is checked here has a type: the rest is the business of the connector.
"""

from __future__ import annotations

from typing import Final

from app.nodes.fields import ABSENT, BINDINGS, Field, Schema, anything, expression

# What the engine obeys, not the connector.
OURS: Final = ("retry", "timeoutMs", "outputKey")
# Filled in for each record, over there.
TEMPLATES: Final = ("documentTemplate", "documentTemplateJson")

_SOURCE: Final[Schema] = {"type": "string", "minLength": 1, "format": "expression"}

# Any other field: bindings everywhere, and JSON in the texts that are named so.
OTHER: Final[Schema] = {
    "patternProperties": {
        r"^(?!documentTemplateJson$)[\s\S]*Json$": {
            "anyOf": [{"enum": list(ABSENT)}, {"type": "string", "format": "json"}]
        }
    },
    "additionalProperties": BINDINGS,
}


def _named(**told: str) -> tuple[Field, ...]:
    return tuple(anything(name, text) for name, text in told.items())


_INPUT: Final = expression("inputBinding", "What it works on; the run's input where it is absent.")
_PROJECT: Final = _named(projectId="The project.", projectName="Its name.")
_AGENT: Final = _named(agentId="The agent.", agentName="Its name.")
_COMPUTER: Final = _named(environmentId="The computer.", environmentName="Its name.")
_SCOPE: Final = _named(inputContextScope="How much of the run's data it may see, such as all.")
_ATTACHMENTS: Final = _named(attachments="Files that go along.")

ALL: Final = (
    _INPUT,
    Field(
        "inputBindings",
        {
            "anyOf": [
                {"enum": list(ABSENT)},
                {"type": "object", "additionalProperties": _SOURCE},
                {"type": "array", "items": _SOURCE},
            ],
            "description": "Expressions by name, or a list of them; sent as bindings.",
        },
    ),
    expression("recordsBinding", "An expression that gives records; sent as bindings.records."),
    Field("documentTemplate", {"description": "A document for each record, not filled in here."}),
    Field("documentTemplateJson", {"description": "The same, as a text that holds JSON."}),
)

ACTION: Final = (
    *_named(message="What the agent is told."),
    *_AGENT,
    *_COMPUTER,
    *_PROJECT,
    *_SCOPE,
    *_named(
        contextType="computer or project.",
        resource="computer or project.",
        outputMode="text, or json.",
        requireJsonOutput="The answer must be JSON.",
        outputFields="The fields of the answer.",
        outputContract="What the answer must look like.",
    ),
    *_ATTACHMENTS,
)
IMAGINE: Final = (
    *_named(
        prompt="What is to be made.",
        templateId="The template.",
        templateName="Its name.",
        mediaMode="image or video.",
        imageModelId="The model for images.",
        videoModelId="The model for videos.",
        aspectRatio="Such as 16:9.",
    ),
    *_AGENT,
    *_COMPUTER,
    *_PROJECT,
    *_SCOPE,
    *_ATTACHMENTS,
)
FIRECRAWL: Final = _named(
    operation="What is to be done, such as web_search.",
    query="What is searched for.",
    url="The page.",
    filePath="The document.",
    prompt="What is to be extracted.",
    schema="The JSON Schema of what is extracted.",
    limit="How many results.",
    formats="Of the results, between commas.",
    saveArtifacts="Whether what was found is kept.",
    credentialRef="Where the connector finds its credential.",
    credentialVaultId="The vault that has it.",
    credentialSecretId="Its id there.",
)
DATABASE: Final = _named(
    databaseId="The database.",
    databaseName="Its name.",
    collection="The collection.",
    documentId="The document.",
    document="What it is to hold.",
    upsertKey="The field by which a document is found again.",
)
TICKET: Final = (
    *_PROJECT,
    *_named(
        ticketId="The ticket.",
        ticketTitle="Its title.",
        ticketStatus="Its status.",
        comment="What is said about it.",
        assigneeId="Who gets it.",
        assigneeName="Their name.",
        instructions="What they are to do.",
        subtaskTitle="The title of a part of it.",
        subtaskDescription="What that is about.",
        fields="Its other fields.",
    ),
    *_AGENT,
    *_COMPUTER,
)
