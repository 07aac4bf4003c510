// Starts Swagger UI on the page of the documentation. A file of its own: the page's policy allows no script inside it.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null, // else the page would send its address to somebody else's server
});
