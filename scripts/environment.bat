@echo off
rem Make the project's environment in .venv and install what it needs.  Usage: environment.bat [REQUIREMENTS]
rem Needs a Python of 3.11 or newer and a way to PyPI, nothing else.
setlocal DisableDelayedExpansion
set "ROOT=%~dp0.."
set "REQUIREMENTS=%~1"
set "PYTHON=%ROOT%\.venv\Scripts\python.exe"
if exist "%PYTHON%" goto install
set "BASE=py -3"
py -3 -c "" >nul 2>nul
if errorlevel 1 set "BASE=python"
%BASE% -c "import sys; sys.exit(sys.version_info < (3, 11))"
if errorlevel 1 echo no Python of 3.11 or newer found; install one from python.org 1>&2
if errorlevel 1 exit /b 1
%BASE% -m venv "%ROOT%\.venv"
if errorlevel 1 exit /b 1
:install
echo installing what the project needs into "%ROOT%\.venv" ...
"%PYTHON%" -m pip install --quiet --requirement "%ROOT%\requirements.txt"
if errorlevel 1 exit /b 1
if not defined REQUIREMENTS exit /b 0
"%PYTHON%" -m pip install --quiet --requirement "%REQUIREMENTS%"
exit /b %ERRORLEVEL%
