"use strict";
// The viewer would otherwise ask a host of its makers whether the document is right.
SwaggerUIBundle({
  url: "openapi.json",
  domNode: document.getElementById("viewer"),
  validatorUrl: "none",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,
});
